-- Read the tenants whose memories a collection holds, by one index probe a tenant.
-- $1 profile, $2 the collection's tenant or empty
WITH RECURSIVE t (tenant) AS (
    (SELECT m.tenant FROM memory_items m ORDER BY m.tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT m.tenant FROM memory_items m WHERE m.tenant > t.tenant ORDER BY m.tenant LIMIT 1)
    FROM t WHERE t.tenant IS NOT NULL
)
SELECT t.tenant FROM t WHERE t.tenant IS NOT NULL AND {belongs};
