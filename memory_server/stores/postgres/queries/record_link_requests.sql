-- Keep the answers of link requests that changed nothing.
-- $1 tenant, $2 now, $3 the revision they saw, $4 … $11 answers
WITH answered AS (
    INSERT INTO idempotency (tenant, day, request_id, request_hash, revision, version, created, changed, snapshot,
                             recorded_at)
    SELECT $1, a.day, a.request_id, a.request_hash, $3::bigint, a.version, a.created, a.changed, a.snapshot, $2
    FROM unnest(
        $4::date[], $5::text[], $6::bytea[], $7::int[], $8::bigint[], $9::bool[], $10::bool[], $11::text[]
    ) AS a (day, request_id, request_hash, step, version, created, changed, snapshot)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) AS answered FROM answered;
