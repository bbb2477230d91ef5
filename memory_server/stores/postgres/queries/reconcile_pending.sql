-- Count how many of these memories still wait for a job.
-- $1 tenants, $2 ids
SELECT count(*) FROM unnest($1::text[], $2::uuid[]) AS d (tenant, memory_id)
CROSS JOIN LATERAL (
    SELECT i.due_at FROM index_jobs i WHERE i.tenant = d.tenant AND i.memory_id = d.memory_id OFFSET 0
) AS j
WHERE j.due_at IS NOT NULL;
