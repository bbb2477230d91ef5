-- Lock the named memories in the order of their ids, as far as they live; one row even if there are none.
-- Whoever changes a link holds both its ends, so links themselves need no lock.
-- $1 tenant, $2 ids, $3 $4 namespaces and keys, $5 keys of coordinates
SELECT clock_timestamp() AS now,
       COALESCE((SELECT t.revision FROM tenant_revisions t WHERE t.tenant = $1), 0) AS revision,
       r.memory_id, r.namespace, r.key, r.coordinate,
       NOT r.deleted AND (r.expires_at IS NULL OR r.expires_at > clock_timestamp()) AS lives
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (
    SELECT m.memory_id, m.namespace, m.key, m.coordinate, m.expires_at, m.deleted
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
