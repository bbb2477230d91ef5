-- Queue a row again.
-- $1 tenant, $2 id
UPDATE index_jobs SET due_at = statement_timestamp(), queued_at = statement_timestamp()
WHERE tenant = $1 AND memory_id = $2::uuid;
