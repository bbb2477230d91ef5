-- Keep the vectors that records brought along, before their rows are written: what the row's writing does about vectors
-- of the version before then leaves these alone.
-- $1 tenant, $2 profile
INSERT INTO memory_vectors AS v (tenant, memory_id, profile, version, dense, sentences, tokens, token_ids)
SELECT $1, c.memory_id, $2, c.version, c.made, '', '', ''
FROM import_rows c
WHERE c.made IS NOT NULL
ORDER BY c.memory_id
ON CONFLICT (tenant, memory_id, profile) DO UPDATE SET
    version = excluded.version, dense = excluded.dense, sentences = '', tokens = '', token_ids = '';
