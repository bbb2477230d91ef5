-- The BM25 weight of each query term, in their order: idf ln(1 + (N - n + .5) / (n + .5)), times how often the query has it.
corpus AS MATERIALIZED (
    SELECT COALESCE(sum(s.memories), 0)::float8 AS memories,
           CASE WHEN sum(s.memories) > 0 THEN sum(s.length)::float8 / sum(s.memories)::float8 ELSE 0 END AS mean
    FROM corpus_stats s
    WHERE s.tenant = $1 AND ({namespaces} IS NULL OR s.namespace = ANY ({namespaces}))
), weighed AS MATERIALIZED (
    SELECT array_agg(q.times * ln(1 + (c.memories - f.known + 0.5) / (f.known + 0.5)) ORDER BY q.place) AS weights
    FROM unnest({keys}, {times}) WITH ORDINALITY AS q (key, times, place)
    CROSS JOIN corpus c
    CROSS JOIN LATERAL (
        SELECT LEAST(COALESCE(sum(s.frequency), 0)::float8, c.memories) AS known
        FROM term_stats s
        WHERE s.tenant = $1 AND s.term_key = q.key AND ({namespaces} IS NULL OR s.namespace = ANY ({namespaces}))
    ) AS f
)
