-- The distinct actors of a namespace: each step jumps to the next one in the index.
WITH RECURSIVE actors AS (
    (SELECT m.actor FROM memory_items m
     WHERE m.tenant = $1 AND m.namespace = $2 AND m.actor > '' AND NOT m.deleted
     ORDER BY m.actor LIMIT 1)
    UNION ALL
    SELECT (SELECT m.actor FROM memory_items m
            -- That it is after '' as well is what lets the planner use the partial index.
            WHERE m.tenant = $1 AND m.namespace = $2 AND m.actor > a.actor AND m.actor > '' AND NOT m.deleted
            ORDER BY m.actor LIMIT 1)
    FROM actors a WHERE a.actor IS NOT NULL
)
SELECT actor FROM actors WHERE actor IS NOT NULL LIMIT $3
