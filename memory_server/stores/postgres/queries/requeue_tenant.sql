-- Find and lock a tenant's rows of older epochs, some at a time.
-- $1 tenant, $2 epoch, $3 limit
SELECT j.memory_id FROM index_jobs j
WHERE j.tenant = $1 AND j.indexed_epoch < $2::bigint AND j.due_at IS NULL
LIMIT $3::bigint
FOR UPDATE SKIP LOCKED;
