-- Like lock_rows.sql, for memories named by id, by key or by coordinate.
-- $1 tenant, $2 ids, $3 $4 namespaces and keys, $5 keys of coordinates
SELECT clock_timestamp() AS now,
       COALESCE((SELECT t.revision FROM tenant_revisions t WHERE t.tenant = $1), 0) AS revision,
       r.*
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (
    SELECT m.memory_id, m.namespace, m.key, m.coordinate, m.created_at, m.updated_at, m.expires_at, m.version,
           m.deleted, m.content_hash, m.origin_at, m.origin_brain
    FROM memory_items m
    WHERE m.tenant = $1 AND m.memory_id = ANY (ARRAY(
        SELECT id FROM unnest($2::uuid[]) AS id
        UNION ALL
        SELECT k.memory_id
        FROM unnest($3::text[], $4::text[]) AS named (namespace, key)
        CROSS JOIN LATERAL (
            SELECT i.memory_id FROM memory_items i
            WHERE i.tenant = $1 AND i.namespace = named.namespace AND i.key = named.key AND i.key <> ''
              AND NOT i.deleted
        ) AS k
        UNION ALL
        SELECT i.memory_id
        FROM memory_items i
        WHERE i.tenant = $1 AND i.place_key = ANY ($5::bigint[]) AND NOT i.deleted
    ))
    ORDER BY m.memory_id
    FOR NO KEY UPDATE OF m
) AS r ON true;
