-- Read the whole content of rows this transaction has locked.
-- $1 tenant, $2 ids
SELECT {columns}
FROM memory_items m
WHERE m.tenant = $1 AND m.memory_id = ANY ($2::uuid[]);
