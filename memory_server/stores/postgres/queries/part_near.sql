, near AS MATERIALIZED (
    -- The turns directly before and after each candidate in its session.
    SELECT n.memory_id
    FROM found f
    CROSS JOIN LATERAL (
        (SELECT p.memory_id FROM memory_items p
         WHERE p.tenant = $1 AND p.session_id = f.session_id AND p.session_id <> '' AND p.sequence IS NOT NULL
           AND p.sequence < f.sequence AND p.namespace = f.namespace AND NOT p.deleted
         ORDER BY p.sequence DESC LIMIT 1)
        UNION ALL
        (SELECT p.memory_id FROM memory_items p
         WHERE p.tenant = $1 AND p.session_id = f.session_id AND p.session_id <> '' AND p.sequence IS NOT NULL
           AND p.sequence > f.sequence AND p.namespace = f.namespace AND NOT p.deleted
         ORDER BY p.sequence LIMIT 1)
    ) AS n
    WHERE f.session_id <> '' AND f.sequence IS NOT NULL
)
