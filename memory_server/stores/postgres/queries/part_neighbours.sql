
    UNION ALL
    SELECT m.memory_id::text, m.mark, v.mark, {vectors}, true, wide.*
    FROM (
        SELECT m.*, near.row_mark, near.vector_mark
        FROM near
        CROSS JOIN LATERAL (
            SELECT i.xmin AS mark, i.* FROM memory_items i
            WHERE i.tenant = gate.tenant AND i.memory_id = near.memory_id OFFSET 0
        ) AS m
        WHERE {live} AND {filter}
        OFFSET 0
    ) AS m
    {wide}
    {vectors_of}
