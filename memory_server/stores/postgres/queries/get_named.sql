-- Read living memories named by id, key or coordinate.
-- $1 tenant, $2 ids, $3 $4 namespaces and keys, $5 keys of coordinates
SELECT {columns}
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
) AS wanted (memory_id)
CROSS JOIN LATERAL (
    SELECT * FROM memory_items i WHERE i.tenant = $1 AND i.memory_id = wanted.memory_id OFFSET 0
) AS m {vectors}
WHERE {live};
