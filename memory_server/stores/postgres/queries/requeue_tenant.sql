-- Queue a tenant's rows of older epochs again, some at a time.
-- $1 tenant, $2 epoch, $3 limit
WITH older AS MATERIALIZED (
    SELECT j.memory_id FROM index_jobs j
    WHERE j.tenant = $1 AND j.indexed_epoch < $2::bigint AND j.due_at IS NULL
    LIMIT $3::bigint
    FOR UPDATE SKIP LOCKED
)
UPDATE index_jobs j SET due_at = statement_timestamp(), queued_at = statement_timestamp()
FROM older WHERE j.tenant = $1 AND j.memory_id = older.memory_id;
