-- Keep vectors of versions that are still current. The row is locked, so that no vector outlives a memory that is
-- forgotten at this moment.
-- $1 profile, $2 … $8 tenants, ids, versions, dense, sentences, tokens, token ids
WITH current AS MATERIALIZED (
    SELECT g.tenant, g.memory_id, g.version, g.dense, g.sentences, g.tokens, g.token_ids
    FROM unnest($2::text[], $3::uuid[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[])
        AS g (tenant, memory_id, version, dense, sentences, tokens, token_ids)
    CROSS JOIN LATERAL (
        SELECT 1 FROM memory_items i
        WHERE i.tenant = g.tenant AND i.memory_id = g.memory_id AND i.version = g.version AND NOT i.deleted
        FOR SHARE
    ) AS m
)
INSERT INTO memory_vectors AS v (tenant, memory_id, profile, version, dense, sentences, tokens, token_ids)
SELECT c.tenant, c.memory_id, $1, c.version, c.dense, c.sentences, c.tokens, c.token_ids FROM current c
ON CONFLICT (tenant, memory_id, profile) DO UPDATE SET
    version = excluded.version, dense = excluded.dense, sentences = excluded.sentences, tokens = excluded.tokens,
    token_ids = excluded.token_ids
WHERE v.version <= excluded.version;
