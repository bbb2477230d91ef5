-- Read the ids of living memories that match, in id order.
-- $1 tenant, then the values of the filter, and the limit
SELECT m.memory_id
FROM memory_items m
WHERE m.tenant = $1 AND {live} AND {filter}
ORDER BY m.memory_id
LIMIT {limit};
