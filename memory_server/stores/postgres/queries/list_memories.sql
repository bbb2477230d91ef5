-- Read a page of living memories.
-- $1 tenant, then the values of the filter, of the last page's end, and the limit
SELECT {columns}
FROM memory_items m {vectors}
WHERE m.tenant = $1 AND {live} AND {filter}
ORDER BY {order}
LIMIT {limit};
