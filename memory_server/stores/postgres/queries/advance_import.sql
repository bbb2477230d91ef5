-- Move a job on, and keep what was refused.
-- $1 tenant, $2 id, $3 offset, $4 stored, $5 memories among them, $6 skipped, $7 refused, $8 revision or NULL, $9 state,
-- $10 how long the lease counts as held, $11 … $15 refusals
WITH kept AS (
    INSERT INTO import_refusals (tenant, import_id, record, reason, description, violations, metadata)
    SELECT $1, $2::uuid, r.* FROM unnest($11::bigint[], $12::text[], $13::text[], $14::text[], $15::text[]) AS r
)
UPDATE import_jobs AS j SET
    committed_offset = $3::bigint, stored = j.stored + $4::bigint, memories = j.memories + $5::bigint,
    skipped = j.skipped + $6::bigint, refused = j.refused + $7::bigint,
    first_revision = CASE WHEN j.first_revision = 0 THEN COALESCE($8::bigint, 0) ELSE j.first_revision END,
    last_revision = COALESCE($8::bigint, j.last_revision),
    state = $9, leased_until = clock_timestamp() + $10::interval, updated_at = clock_timestamp()
WHERE j.tenant = $1 AND j.import_id = $2::uuid
RETURNING {columns};
