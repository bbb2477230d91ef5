
UNION ALL
SELECT {columns}, m.length, array_send(m.term_keys), array_send(m.term_counts),
       v.dense, v.sentences, v.tokens, v.token_ids, true, NULL, NULL, NULL
FROM memory_items m
LEFT JOIN memory_vectors v ON v.tenant = $1 AND v.memory_id = m.memory_id AND v.profile = {profile}
                          AND v.version = m.version
WHERE m.tenant = $1 AND m.memory_id = ANY (ARRAY(
    SELECT n.memory_id FROM near n WHERE NOT EXISTS (SELECT FROM found f WHERE f.memory_id = n.memory_id)
)) AND {live} AND {filter}
