-- Read the versions of memories that were current at a moment.
-- $1 tenant, $2 ids, $3 the moment
SELECT DISTINCT ON (m.memory_id) {columns}
FROM memory_versions m
WHERE m.tenant = $1 AND m.memory_id = ANY ($2::uuid[]) AND m.updated_at <= $3
ORDER BY m.memory_id, m.version DESC;
