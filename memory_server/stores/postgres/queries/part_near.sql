, near AS (
        -- The turns directly before and after each candidate in its session.
        SELECT DISTINCT ON (n.memory_id) n.*
        FROM found f
        CROSS JOIN LATERAL (
            (SELECT p.memory_id,
                    CASE WHEN p.memory_id = f.before_id THEN f.before_mark END AS row_mark,
                    CASE WHEN p.memory_id = f.before_id THEN f.before_vector_mark END AS vector_mark
             FROM memory_items p
             WHERE p.tenant = gate.tenant AND p.session_id = f.session_id AND p.session_id <> ''
               AND p.sequence IS NOT NULL AND p.sequence < f.sequence AND p.namespace = f.namespace AND NOT p.deleted
             ORDER BY p.sequence DESC LIMIT 1)
            UNION ALL
            (SELECT p.memory_id,
                    CASE WHEN p.memory_id = f.after_id THEN f.after_mark END,
                    CASE WHEN p.memory_id = f.after_id THEN f.after_vector_mark END
             FROM memory_items p
             WHERE p.tenant = gate.tenant AND p.session_id = f.session_id AND p.session_id <> ''
               AND p.sequence IS NOT NULL AND p.sequence > f.sequence AND p.namespace = f.namespace AND NOT p.deleted
             ORDER BY p.sequence LIMIT 1)
        ) AS n
        WHERE f.session_id <> '' AND f.sequence IS NOT NULL AND n.memory_id NOT IN (SELECT memory_id FROM found)
        ORDER BY n.memory_id, n.row_mark IS NULL
    )
