-- Read memories in the versions the changelog tells of, as far as they still live and the version is kept.
-- $1 tenant, $2 ids, $3 versions
SELECT {columns}
FROM unnest($2::uuid[], $3::bigint[]) AS w (memory_id, version)
CROSS JOIN LATERAL (
    SELECT * FROM memory_items i WHERE i.tenant = $1 AND i.memory_id = w.memory_id AND i.version = w.version OFFSET 0
) AS m
WHERE {live}
UNION ALL
SELECT {old_columns}
FROM unnest($2::uuid[], $3::bigint[]) AS w (memory_id, version)
CROSS JOIN LATERAL (
    SELECT * FROM memory_versions i
    WHERE i.tenant = $1 AND i.memory_id = w.memory_id AND i.version = w.version
    OFFSET 0
) AS o
CROSS JOIN LATERAL (
    SELECT i.deleted, i.expires_at FROM memory_items i WHERE i.tenant = $1 AND i.memory_id = w.memory_id OFFSET 0
) AS m
WHERE {live};
