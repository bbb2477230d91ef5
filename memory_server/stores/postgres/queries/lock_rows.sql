-- Lock the named memories in the order of their ids and read what verdicts need; one row even if there are none.
-- $1 tenant, $2 ids
SELECT clock_timestamp() AS now,
       COALESCE((SELECT t.revision FROM tenant_revisions t WHERE t.tenant = $1), 0) AS revision,
       r.*
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (
    SELECT m.memory_id, m.namespace, m.key, m.coordinate, m.created_at, m.updated_at, m.expires_at, m.version,
           m.deleted, m.content_hash, m.origin_at, m.origin_brain
    FROM memory_items m
    WHERE m.tenant = $1 AND m.memory_id = ANY ($2::uuid[])
    ORDER BY m.memory_id
    FOR NO KEY UPDATE OF m
) AS r ON true;
