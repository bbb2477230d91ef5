-- Read the newest rows that the index does not hold, and those it took in within the last ten seconds.
-- Newest first: rows written since, then the rows of lost collections.
-- $1 tenant, then the values of terms, epoch, limits and filter
WITH {epoch}, {weights}, open AS MATERIALIZED (
    (
        SELECT j.memory_id, true AS behind
        FROM index_jobs j
        WHERE j.tenant = $1 AND j.indexed_epoch < (SELECT epoch FROM searched)
        ORDER BY j.indexed_epoch, j.moved_at DESC
        LIMIT {window}
    )
    UNION ALL
    (
        SELECT j.memory_id, false
        FROM index_jobs j
        WHERE j.tenant = $1 AND j.indexed_epoch = (SELECT epoch FROM searched)
          AND j.moved_at > statement_timestamp() - interval '10 seconds'
        ORDER BY j.moved_at DESC
        LIMIT {window}
    )
)
SELECT t.open_rows, x.*
FROM (SELECT count(*) AS open_rows FROM open) AS t
LEFT JOIN LATERAL (
    SELECT m.memory_id, o.behind, v.version IS NOT NULL AS embedded,
           -- The rows come in the order of the window, so this counts the embedded ones so far without sorting vectors.
           CASE WHEN count(v.version) OVER (ROWS UNBOUNDED PRECEDING) <= {vectors} THEN v.dense END AS dense,
           CASE WHEN m.term_keys && {keys} THEN {score} END AS score
    FROM open o
    CROSS JOIN LATERAL (
        SELECT * FROM memory_items i WHERE i.tenant = $1 AND i.memory_id = o.memory_id OFFSET 0
    ) AS m
    LEFT JOIN LATERAL (
        SELECT e.version, e.dense FROM memory_vectors e
        WHERE e.tenant = $1 AND e.memory_id = m.memory_id AND e.profile = {profile} AND e.version = m.version
        OFFSET 0
    ) AS v ON true
    WHERE {live} AND {filter}
) AS x ON true;
