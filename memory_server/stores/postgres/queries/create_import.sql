-- Make an import job; of a request id that came before only the number of rows tells.
-- $1 tenant, $2 id, $3 on_conflict, $4 max_refused, $5 dry_run, $6 request id, $7 its hash, $8 label
INSERT INTO import_jobs (tenant, import_id, state, on_conflict, max_refused, dry_run, request_id, request_hash, label,
                         created_at, updated_at)
VALUES ($1, $2::uuid, 'active', $3, $4::bigint, $5::bool, $6, $7::bytea, $8, clock_timestamp(), clock_timestamp())
ON CONFLICT DO NOTHING
RETURNING import_id;
