-- Count memories as un-indexed and have them brought to the index, or out of it, by jobs of their own.
-- $1 tenants, $2 ids
WITH differing AS (
    SELECT d.tenant, d.memory_id, COALESCE(m.version, 0) AS version
    FROM unnest($1::text[], $2::uuid[]) AS d (tenant, memory_id)
    LEFT JOIN LATERAL (
        SELECT i.version FROM memory_items i WHERE i.tenant = d.tenant AND i.memory_id = d.memory_id OFFSET 0
    ) AS m ON true
    ORDER BY d.tenant, d.memory_id
)
INSERT INTO index_jobs AS j (tenant, memory_id, version, due_at, queued_at, moved_at)
SELECT d.tenant, d.memory_id, d.version, statement_timestamp(), statement_timestamp(), statement_timestamp()
FROM differing d
ON CONFLICT (tenant, memory_id) DO UPDATE SET
    version = GREATEST(j.version, excluded.version), indexed_epoch = 0, due_at = excluded.due_at,
    queued_at = excluded.queued_at, moved_at = excluded.moved_at, attempts = 0
WHERE j.due_at IS NULL;
