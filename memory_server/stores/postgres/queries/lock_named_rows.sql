-- Like lock_rows.sql, for memories named by id, by key or by coordinate.
-- $1 tenant, $2 ids, $3 $4 namespaces and keys, $5 keys of coordinates
SELECT clock_timestamp() AS now,
       COALESCE((SELECT t.revision FROM tenant_revisions t WHERE t.tenant = $1), 0) AS revision,
       r.*
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (
    SELECT m.*
    FROM (
        SELECT id FROM unnest($2::uuid[]) AS id
        UNION
        SELECT k.memory_id
        FROM unnest($3::text[], $4::text[]) AS named (namespace, key)
        CROSS JOIN LATERAL (
            SELECT i.memory_id FROM memory_items i
            WHERE i.tenant = $1 AND i.namespace = named.namespace AND i.key = named.key AND i.key <> ''
              AND NOT i.deleted
            OFFSET 0
        ) AS k
        UNION
        SELECT c.memory_id
        FROM unnest($5::bigint[]) AS named (place_key)
        CROSS JOIN LATERAL (
            SELECT i.memory_id FROM memory_items i
            WHERE i.tenant = $1 AND i.place_key = named.place_key AND NOT i.deleted
            OFFSET 0
        ) AS c
        ORDER BY 1
    ) AS wanted (memory_id)
    CROSS JOIN LATERAL (
        SELECT i.memory_id, i.namespace, i.key, i.coordinate, i.created_at, i.updated_at, i.expires_at, i.version,
               i.deleted, i.content_hash, i.origin_at, i.origin_brain
        FROM memory_items i
        WHERE i.tenant = $1 AND i.memory_id = wanted.memory_id
        FOR NO KEY UPDATE
    ) AS m
    OFFSET 0
) AS r ON true;
