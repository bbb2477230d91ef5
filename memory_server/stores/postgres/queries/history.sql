-- Read the versions of a living memory, newest first; without embeddings.
-- $1 tenant, $2 id, $3 only versions before this one, $4 limit
WITH living AS (
    SELECT m.* FROM memory_items m WHERE m.tenant = $1 AND m.memory_id = $2::uuid AND {live}
)
SELECT {columns} FROM living m WHERE $3::bigint IS NULL OR m.version < $3::bigint
UNION ALL
SELECT {columns} FROM memory_versions m
WHERE m.tenant = $1 AND m.memory_id = $2::uuid AND ($3::bigint IS NULL OR m.version < $3::bigint)
  AND EXISTS (SELECT FROM living)
ORDER BY version DESC
LIMIT $4::bigint;
