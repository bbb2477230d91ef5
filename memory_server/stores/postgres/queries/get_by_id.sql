-- Read living memories by id.
-- $1 tenant, $2 ids
SELECT {columns}
FROM memory_items m {vectors}
WHERE m.tenant = $1 AND m.memory_id = ANY ($2::uuid[]) AND {live};
