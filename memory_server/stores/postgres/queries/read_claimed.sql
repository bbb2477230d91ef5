-- Read the current state of claimed memories, with vectors of their current version if there are any.
-- $1 tenants, $2 ids, $3 the profile, or empty for the tenant's own
SELECT {columns}, j.tenant, {live} AS lives, v.dense, v.sentences, v.tokens, v.token_ids
FROM unnest($1::text[], $2::uuid[]) AS j (tenant, memory_id)
CROSS JOIN LATERAL (
    SELECT * FROM memory_items i WHERE i.tenant = j.tenant AND i.memory_id = j.memory_id OFFSET 0
) AS m
LEFT JOIN LATERAL (
    SELECT e.* FROM memory_vectors e
    WHERE e.tenant = j.tenant AND e.memory_id = j.memory_id AND e.version = m.version
      AND e.profile = COALESCE(NULLIF($3, ''), (SELECT p.profile FROM embedding_profiles p WHERE p.tenant = j.tenant),
                               e.profile)
    LIMIT 1
) AS v ON true;
