-- Re-read candidates with vectors, terms and corpus statistics; only living rows of the tenant that match.
-- $1 tenant, then the values of ids, exact target, terms, profile and filter
WITH found AS MATERIALIZED (
    SELECT {columns}, m.length, array_send(m.term_keys) AS term_keys, array_send(m.term_counts) AS term_counts
    FROM unnest({ids}) AS named (memory_id)
    CROSS JOIN LATERAL (
        SELECT * FROM memory_items i WHERE i.tenant = $1 AND i.memory_id = named.memory_id OFFSET 0
    ) AS m
    WHERE {live} AND {filter}
){near}
SELECT f.*, v.dense, {details}, false AS neighbour,
       (SELECT COALESCE(sum(s.memories), 0)::bigint FROM corpus_stats s
        WHERE s.tenant = $1 AND ({namespaces} IS NULL OR s.namespace = ANY ({namespaces}))) AS corpus_memories,
       (SELECT COALESCE(sum(s.length), 0)::bigint FROM corpus_stats s
        WHERE s.tenant = $1 AND ({namespaces} IS NULL OR s.namespace = ANY ({namespaces}))) AS corpus_length,
       (SELECT array_send(array_agg(COALESCE((
            SELECT sum(s.frequency) FROM term_stats s
            WHERE s.tenant = $1 AND s.term_key = q.key AND ({namespaces} IS NULL OR s.namespace = ANY ({namespaces}))
        ), 0)::bigint ORDER BY q.place)) FROM unnest({keys}) WITH ORDINALITY AS q (key, place)) AS corpus_frequencies,
       (SELECT r.revision FROM tenant_revisions r WHERE r.tenant = $1) AS revision
FROM found f
LEFT JOIN LATERAL (
    SELECT * FROM memory_vectors e
    WHERE e.tenant = $1 AND e.memory_id = f.memory_id AND e.profile = {profile} AND e.version = f.version
    OFFSET 0
) AS v ON true{neighbours};
