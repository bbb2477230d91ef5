LEFT JOIN LATERAL (
        SELECT e.xmin AS mark, e.* FROM memory_vectors e
        WHERE e.tenant = gate.tenant AND e.memory_id = m.memory_id AND e.profile = {profile} AND e.version = m.version
        OFFSET 0
    ) AS v ON true
