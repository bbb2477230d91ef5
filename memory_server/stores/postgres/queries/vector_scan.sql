-- Read the dense vectors of living rows that match.
-- $1 tenant, then the profile, the values of the filter and the limit
SELECT m.memory_id, v.dense
FROM memory_items m
CROSS JOIN LATERAL (
    SELECT e.dense FROM memory_vectors e
    WHERE e.tenant = $1 AND e.memory_id = m.memory_id AND e.profile = {profile} AND e.version = m.version
    OFFSET 0
) AS v
WHERE m.tenant = $1 AND {live} AND {filter}
ORDER BY m.memory_id
LIMIT {limit};
