LEFT JOIN LATERAL (
        SELECT * FROM memory_items i WHERE i.tenant = $1 AND i.memory_id = c.memory_id AND c.before > 0 OFFSET 0
    ) AS m ON true