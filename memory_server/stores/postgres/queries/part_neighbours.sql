
UNION ALL
SELECT {columns}, m.length, array_send(m.term_keys), array_send(m.term_counts),
       v.dense, {details}, true, NULL, NULL, NULL, NULL
FROM (SELECT n.memory_id FROM near n EXCEPT SELECT f.memory_id FROM found f) AS named
CROSS JOIN LATERAL (
    SELECT * FROM memory_items i WHERE i.tenant = $1 AND i.memory_id = named.memory_id OFFSET 0
) AS m
LEFT JOIN LATERAL (
    SELECT * FROM memory_vectors e
    WHERE e.tenant = $1 AND e.memory_id = m.memory_id AND e.profile = {profile} AND e.version = m.version
    OFFSET 0
) AS v ON true
WHERE {live} AND {filter}
