-- Find living memories named by id, key or coordinate.
-- $1 tenant, $2 ids, $3 $4 namespaces and keys, $5 keys of coordinates
SELECT m.memory_id, m.namespace, m.key, m.coordinate
FROM memory_items m
WHERE m.tenant = $1 AND {live} AND m.memory_id = ANY (ARRAY(
    SELECT id FROM unnest($2::uuid[]) AS id
    UNION ALL
    SELECT k.memory_id
    FROM unnest($3::text[], $4::text[]) AS named (namespace, key)
    CROSS JOIN LATERAL (
        SELECT i.memory_id FROM memory_items i
        WHERE i.tenant = $1 AND i.namespace = named.namespace AND i.key = named.key AND i.key <> '' AND NOT i.deleted
    ) AS k
    UNION ALL
    SELECT i.memory_id
    FROM memory_items i
    WHERE i.tenant = $1 AND i.place_key = ANY ($5::bigint[]) AND NOT i.deleted
))
ORDER BY m.memory_id;
