-- Drop the jobs of memories that have left the index; one that came back meanwhile is due again.
-- $1 … $4 tenants, ids, versions, leases
WITH mine AS MATERIALIZED (
    SELECT k.tenant, k.memory_id, k.version = g.version AS done
    FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::uuid[]) AS g (tenant, memory_id, version, lease)
    JOIN index_jobs k ON k.tenant = g.tenant AND k.memory_id = g.memory_id AND k.lease = g.lease
    ORDER BY g.tenant, g.memory_id
    FOR UPDATE OF k
), dropped AS (
    DELETE FROM index_jobs j USING mine
    WHERE mine.done AND j.tenant = mine.tenant AND j.memory_id = mine.memory_id
)
UPDATE index_jobs j SET due_at = statement_timestamp(), attempts = 0, lease = NULL, leased_until = NULL
FROM mine
WHERE NOT mine.done AND j.tenant = mine.tenant AND j.memory_id = mine.memory_id;
