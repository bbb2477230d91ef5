-- Make a job due that its worker is done with, since the memory came back meanwhile.
-- $1 tenant, $2 id, $3 lease
UPDATE index_jobs SET due_at = statement_timestamp(), attempts = 0, lease = NULL, leased_until = NULL
WHERE tenant = $1 AND memory_id = $2::uuid AND lease = $3::uuid;
