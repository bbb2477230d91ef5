-- Find tenants with index jobs, by one index probe a tenant, after a name.
-- $1 the name, $2 how many
WITH RECURSIVE busy (tenant) AS (
    (SELECT j.tenant FROM index_jobs j WHERE j.due_at IS NOT NULL AND j.tenant > $1 ORDER BY j.tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT j.tenant FROM index_jobs j WHERE j.due_at IS NOT NULL AND j.tenant > b.tenant
            ORDER BY j.tenant LIMIT 1)
    FROM busy b WHERE b.tenant IS NOT NULL
)
SELECT tenant FROM busy WHERE tenant IS NOT NULL LIMIT $2;
