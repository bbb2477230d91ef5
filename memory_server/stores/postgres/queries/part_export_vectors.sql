LEFT JOIN LATERAL (
    SELECT e.dense, e.profile FROM memory_vectors e
    WHERE e.tenant = m.tenant AND e.memory_id = m.memory_id AND e.version = m.version AND e.profile = {profile}
    OFFSET 0
) AS v ON true
