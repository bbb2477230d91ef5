-- Lock the named memories and read what verdicts need; one row even if there are none.
-- Rows are locked in the order of the ids given.
-- $1 tenant, $2 ids in their order
SELECT clock_timestamp() AS now,
       COALESCE((SELECT t.revision FROM tenant_revisions t WHERE t.tenant = $1), 0) AS revision,
       r.*
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (
    SELECT m.*
    FROM unnest($2::uuid[]) AS named (memory_id)
    CROSS JOIN LATERAL (
        SELECT i.memory_id, i.namespace, i.key, i.coordinate, i.created_at, i.updated_at, i.expires_at, i.version,
               i.deleted, i.content_hash, i.origin_at, i.origin_brain
        FROM memory_items i
        WHERE i.tenant = $1 AND i.memory_id = named.memory_id
        FOR NO KEY UPDATE
    ) AS m
    OFFSET 0
) AS r ON true;
