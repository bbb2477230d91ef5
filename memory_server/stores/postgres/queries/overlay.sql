-- Read the newest rows that the index does not hold, and those it took in within the last ten seconds.
-- Newest first: rows written since, then the rows of lost collections.
-- $1 tenant, then the values of terms, epoch, limits and filter
WITH {epoch}, {weights}, open AS MATERIALIZED (
    (
        SELECT j.memory_id, true AS behind, j.indexed_epoch, j.moved_at
        FROM index_jobs j
        WHERE j.tenant = $1 AND j.indexed_epoch < (SELECT epoch FROM searched)
        ORDER BY j.indexed_epoch, j.moved_at DESC
        LIMIT {window}
    )
    UNION ALL
    (
        SELECT j.memory_id, false, j.indexed_epoch, j.moved_at
        FROM index_jobs j
        WHERE j.tenant = $1 AND j.indexed_epoch = (SELECT epoch FROM searched)
          AND j.moved_at > statement_timestamp() - interval '10 seconds'
        ORDER BY j.moved_at DESC
        LIMIT {window}
    )
), matching AS (
    SELECT m.memory_id, m.version, o.behind, v.dense, v.dense IS NOT NULL AS embedded,
           CASE WHEN m.term_keys && {keys} THEN {score} END AS score,
           row_number() OVER (
               PARTITION BY v.dense IS NOT NULL ORDER BY o.behind DESC, o.indexed_epoch, o.moved_at DESC
           ) AS place,
           count(*) FILTER (WHERE o.behind) OVER () AS behind_rows,
           (SELECT count(*) FROM open) AS open_rows
    FROM open o
    CROSS JOIN LATERAL (
        SELECT * FROM memory_items i WHERE i.tenant = $1 AND i.memory_id = o.memory_id OFFSET 0
    ) AS m
    LEFT JOIN LATERAL (
        SELECT e.dense FROM memory_vectors e
        WHERE e.tenant = $1 AND e.memory_id = m.memory_id AND e.profile = {profile} AND e.version = m.version
        OFFSET 0
    ) AS v ON true
    WHERE {live} AND {filter}
)
SELECT memory_id, version, embedded, score, place, behind_rows, open_rows,
       CASE WHEN embedded AND place <= {vectors} THEN dense END AS dense
FROM matching
WHERE score IS NOT NULL OR place <= CASE WHEN embedded THEN {vectors} ELSE {unembedded} END;
