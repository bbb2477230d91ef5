-- BM25 of a row m with k1 1.2 and b .75; without statistics, lengths count for nothing.
(
    SELECT sum(w.weight * t.count * 2.2 / (t.count + 1.2 * (0.25 + 0.75 * CASE WHEN c.mean > 0 THEN m.length / c.mean ELSE 1 END)))
    FROM corpus c
    CROSS JOIN weights w
    CROSS JOIN LATERAL (SELECT m.term_counts[array_position(m.term_keys, w.key)]::float8 AS count) AS t
    WHERE t.count IS NOT NULL
)
