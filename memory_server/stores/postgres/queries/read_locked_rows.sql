-- Read the whole content of rows this transaction has locked.
-- $1 tenant, $2 ids
SELECT {columns}
FROM unnest($2::uuid[]) AS named (memory_id)
CROSS JOIN LATERAL (
    SELECT * FROM memory_items i WHERE i.tenant = $1 AND i.memory_id = named.memory_id OFFSET 0
) AS m;
