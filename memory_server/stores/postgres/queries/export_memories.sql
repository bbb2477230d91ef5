-- Read the next memories of an export.
-- $1 tenant, then the values of the filter, of the last page's end, and the limit
SELECT {columns}
FROM memory_items m {vectors}
WHERE m.tenant = $1 AND {condition}
ORDER BY m.memory_id
LIMIT {limit};
