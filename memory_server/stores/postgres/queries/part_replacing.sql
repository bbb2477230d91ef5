-- What a batch does about rows that are there already; a placeholder joins each row as it was before.
kept AS (
    INSERT INTO memory_versions (
        tenant, memory_id, namespace, key, coordinate, kind, schema_type, schema_version, persona_id, text, payload,
        tags, actor, session_id, sequence, author, source, confidence, importance, relevance, occurred_at, expires_at,
        embedding, embedding_model, created_at, updated_at, version)
    SELECT $1, m.memory_id, m.namespace, m.key, m.coordinate, m.kind, m.schema_type, m.schema_version, m.persona_id,
           m.text, m.payload, m.tags, m.actor, m.session_id, m.sequence, m.author, m.source, m.confidence,
           m.importance, m.relevance, m.occurred_at, m.expires_at, m.embedding, m.embedding_model, m.created_at,
           m.updated_at, m.version
    FROM changed c {old}
    WHERE c.before > 0 AND NOT c.ended
    RETURNING 1
), uncounted AS (
    INSERT INTO term_changes (tenant, namespace, sign, term_keys, length)
    SELECT $1, m.namespace, -1, m.term_keys, m.length
    FROM changed c {old}
    WHERE c.before > 0 AND NOT m.deleted
      AND (c.deleted OR (c.namespace, c.term_keys::bigint[], c.length) IS DISTINCT FROM (m.namespace, m.term_keys, m.length))
    RETURNING 1
), still_embedded AS (
    -- Always a conflict: the vectors stay, their version moves.
    INSERT INTO memory_vectors AS v (tenant, memory_id, profile, version, dense, sentences, tokens, token_ids)
    SELECT $1, c.memory_id, e.profile, c.version, e.dense, e.sentences, e.tokens, e.token_ids
    FROM changed c {old}
    CROSS JOIN LATERAL (
        SELECT * FROM memory_vectors o
        WHERE o.tenant = $1 AND o.memory_id = c.memory_id AND o.version = c.before
        OFFSET 0
    ) AS e
    WHERE c.before > 0 AND NOT c.ended
      AND (m.text, m.actor, m.embedding, m.embedding_model)
          IS NOT DISTINCT FROM (c.text, c.actor, c.embedding, c.embedding_model)
    ON CONFLICT (tenant, memory_id, profile) DO UPDATE SET version = excluded.version
    RETURNING 1
), replaced AS (
    -- Always a conflict with the row that is locked already. An upsert finds each row by its key and leaves the
    -- planner no join to get wrong.
    INSERT INTO memory_items AS m (
        tenant, memory_id, namespace, key, coordinate, kind, schema_type, schema_version, persona_id, text, payload,
        tags, actor, session_id, sequence, author, source, confidence, importance, relevance, occurred_at, expires_at,
        embedding, embedding_model, created_at, updated_at, version, deleted, content_hash, origin_at, origin_brain,
        term_keys, term_counts, length, text_key, place_key)
    SELECT $1, c.memory_id, c.namespace, c.key, c.coordinate::float8[], c.kind, c.schema_type, c.schema_version,
           c.persona_id, c.text, c.payload, c.tags::text[], c.actor, c.session_id, c.sequence, c.author, c.source,
           c.confidence, c.importance, c.relevance, c.occurred_at, c.expires_at, c.embedding, c.embedding_model,
           c.created_at, c.updated_at, c.version, c.deleted, c.content_hash, c.origin_at, c.origin_brain,
           c.term_keys::bigint[], c.term_counts::int[], c.length, c.text_key, c.place_key
    FROM changed c
    WHERE c.before > 0
    ON CONFLICT (tenant, memory_id) DO UPDATE SET
        namespace = excluded.namespace, key = excluded.key, coordinate = excluded.coordinate, kind = excluded.kind,
        schema_type = excluded.schema_type, schema_version = excluded.schema_version,
        persona_id = excluded.persona_id, text = excluded.text, payload = excluded.payload, tags = excluded.tags,
        actor = excluded.actor, session_id = excluded.session_id, sequence = excluded.sequence,
        author = excluded.author, source = excluded.source, confidence = excluded.confidence,
        importance = excluded.importance, relevance = excluded.relevance, occurred_at = excluded.occurred_at,
        expires_at = excluded.expires_at, embedding = excluded.embedding, embedding_model = excluded.embedding_model,
        created_at = excluded.created_at, updated_at = excluded.updated_at, version = excluded.version,
        deleted = excluded.deleted, content_hash = excluded.content_hash, origin_at = excluded.origin_at,
        origin_brain = excluded.origin_brain, term_keys = excluded.term_keys, term_counts = excluded.term_counts,
        length = excluded.length, text_key = excluded.text_key, place_key = excluded.place_key
    WHERE m.version < excluded.version
    RETURNING 1
), 
