-- Re-read candidates with vectors, terms and corpus statistics; only living rows of the tenant that match.
-- One statement is one trip: it names its tenant itself, in a CTE that every scan waits for. A scan that did not would
-- find the setting empty and see no row at all.
-- What the caller holds of this very tuple (its mark) is not sent again.
-- $1 tenant, then the values of ids, marks, exact target, terms, profile and filter
WITH gate AS MATERIALIZED (
    SELECT set_config('app.tenant', $1, true) AS tenant
)
SELECT stats.*, answer.*
FROM gate
CROSS JOIN LATERAL (
    SELECT corpus.memories, corpus.length,
           (SELECT array_send(array_agg(COALESCE((
                SELECT sum(s.frequency) FROM term_stats s
                WHERE s.tenant = gate.tenant AND s.term_key = q.key
                  AND ({namespaces} IS NULL OR s.namespace = ANY ({namespaces}))
            ), 0)::bigint ORDER BY q.place)) FROM unnest({keys}) WITH ORDINALITY AS q (key, place)) AS frequencies,
           (SELECT r.revision FROM tenant_revisions r WHERE r.tenant = gate.tenant) AS revision,
           {open}
    FROM (
        SELECT COALESCE(sum(s.memories), 0)::bigint AS memories, COALESCE(sum(s.length), 0)::bigint AS length
        FROM corpus_stats s
        WHERE s.tenant = gate.tenant AND ({namespaces} IS NULL OR s.namespace = ANY ({namespaces}))
    ) AS corpus{opened}
    OFFSET 0
) AS stats
LEFT JOIN LATERAL (
    WITH named AS (
        SELECT * FROM unnest({ids}, {marks}) AS given ({mark_names})
        UNION ALL
        SELECT DISTINCT more.memory_id, {no_marks}
        FROM ({more}) AS more
        WHERE more.memory_id <> ALL ({ids})
    ), found AS MATERIALIZED (
        SELECT m.*, named.row_mark, named.vector_mark{near_marks}
        FROM named
        CROSS JOIN LATERAL (
            SELECT i.xmin AS mark, i.* FROM memory_items i
            WHERE i.tenant = gate.tenant AND i.memory_id = named.memory_id OFFSET 0
        ) AS m
        WHERE {live} AND {filter}
    ){near}
    SELECT m.memory_id::text, m.mark, v.mark AS vectors_mark, {vectors}, false AS neighbour, wide.*
    FROM found m
    {wide}
    {vectors_of}{neighbours}
    OFFSET 0
) AS answer ON true;
