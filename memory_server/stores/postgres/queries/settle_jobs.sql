-- Mark claimed versions as indexed. A row that moved on, or a collection that was lost meanwhile, keeps the job due.
-- $1 $2 the collection's name and epoch, $3 … $6 tenants, ids, versions, leases
WITH filled AS (
    UPDATE index_collections c SET filled = true WHERE c.name = $1 AND c.epoch = $2::bigint AND NOT c.filled
)
UPDATE index_jobs j SET
    indexed_version = CASE WHEN s.done THEN s.version ELSE j.indexed_version END,
    indexed_epoch = CASE WHEN s.done THEN $2::bigint ELSE j.indexed_epoch END,
    moved_at = CASE WHEN s.done THEN statement_timestamp() ELSE j.moved_at END,
    due_at = CASE WHEN s.done THEN NULL ELSE statement_timestamp() END,
    attempts = 0, reason = '', poisoned = false, lease = NULL, leased_until = NULL
FROM (
    SELECT g.tenant, g.memory_id, g.version, g.lease,
           k.version = g.version AND EXISTS (
               SELECT FROM index_collections c WHERE c.name = $1 AND c.epoch = $2::bigint
           ) AS done
    FROM unnest($3::text[], $4::uuid[], $5::bigint[], $6::uuid[]) AS g (tenant, memory_id, version, lease)
    JOIN index_jobs k ON k.tenant = g.tenant AND k.memory_id = g.memory_id AND k.lease = g.lease
    ORDER BY g.tenant, g.memory_id
    FOR UPDATE OF k
) AS s
WHERE j.tenant = s.tenant AND j.memory_id = s.memory_id;
