-- Read the dense vectors of living rows that match.
-- $1 tenant, then the profile, the values of the filter and the limit
SELECT m.memory_id, v.dense
FROM memory_items m
JOIN memory_vectors v ON v.tenant = $1 AND v.memory_id = m.memory_id AND v.profile = {profile} AND v.version = m.version
WHERE m.tenant = $1 AND {live} AND {filter}
ORDER BY m.memory_id
LIMIT {limit};
