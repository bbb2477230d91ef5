-- Write a batch: rows, history, term changes, index jobs, then the revision counter, changelog and answers.
-- Every part sees the state before the batch. The counter's row is locked last and so for the shortest time: its
-- part waits for the parts it counts. Rows are updated in the order given: who gives up a key before who takes it.
-- $1 tenant, $2 now, $3 versions kept, $4 number of revisions, $5 … $41 changed rows, $42 … $49 changelog,
-- $50 … $62 answers
WITH changed AS MATERIALIZED (
    SELECT * FROM unnest(
        $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
        $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bigint[], $19::text[], $20::text[],
        $21::float8[], $22::float8[], $23::float8[], $24::timestamptz[], $25::timestamptz[], $26::bytea[],
        $27::text[], $28::timestamptz[], $29::timestamptz[], $30::bigint[], $31::bool[], $32::bytea[],
        $33::timestamptz[], $34::text[], $35::text[], $36::text[], $37::int[], $38::bigint[], $39::bigint[],
        $40::bigint[], $41::bool[]
    ) AS c (memory_id, namespace, key, coordinate, kind, schema_type, schema_version, persona_id, text, payload, tags,
            actor, session_id, sequence, author, source, confidence, importance, relevance, occurred_at, expires_at,
            embedding, embedding_model, created_at, updated_at, version, deleted, content_hash, origin_at,
            origin_brain, term_keys, term_counts, length, text_key, place_key, before, ended)
), kept AS (
    INSERT INTO memory_versions (
        tenant, memory_id, namespace, key, coordinate, kind, schema_type, schema_version, persona_id, text, payload,
        tags, actor, session_id, sequence, author, source, confidence, importance, relevance, occurred_at, expires_at,
        embedding, embedding_model, created_at, updated_at, version)
    SELECT $1, m.memory_id, m.namespace, m.key, m.coordinate, m.kind, m.schema_type, m.schema_version, m.persona_id,
           m.text, m.payload, m.tags, m.actor, m.session_id, m.sequence, m.author, m.source, m.confidence,
           m.importance, m.relevance, m.occurred_at, m.expires_at, m.embedding, m.embedding_model, m.created_at,
           m.updated_at, m.version
    FROM changed c JOIN memory_items m ON m.tenant = $1 AND m.memory_id = c.memory_id
    WHERE c.before > 0 AND NOT c.ended
    RETURNING 1
), trimmed AS (
    DELETE FROM memory_versions v USING changed c
    WHERE v.tenant = $1 AND v.memory_id = c.memory_id AND c.before >= $3::bigint AND v.version <= c.version - $3::bigint
    RETURNING 1
), uncounted AS (
    INSERT INTO term_changes (tenant, namespace, sign, term_keys, length)
    SELECT $1, m.namespace, -1, m.term_keys, m.length
    FROM changed c JOIN memory_items m ON m.tenant = $1 AND m.memory_id = c.memory_id
    WHERE c.before > 0 AND NOT m.deleted
      AND (c.deleted OR (c.namespace, c.term_keys::bigint[], c.length) IS DISTINCT FROM (m.namespace, m.term_keys, m.length))
    RETURNING 1
), counted AS (
    INSERT INTO term_changes (tenant, namespace, sign, term_keys, length)
    SELECT $1, c.namespace, 1, c.term_keys::bigint[], c.length
    FROM changed c LEFT JOIN memory_items m ON m.tenant = $1 AND m.memory_id = c.memory_id AND c.before > 0
    WHERE NOT c.deleted
      AND (COALESCE(m.deleted, true)
           OR (c.namespace, c.term_keys::bigint[], c.length) IS DISTINCT FROM (m.namespace, m.term_keys, m.length))
    RETURNING 1
), still_embedded AS (
    UPDATE memory_vectors v SET version = c.version
    FROM changed c JOIN memory_items m ON m.tenant = $1 AND m.memory_id = c.memory_id
    WHERE c.before > 0 AND NOT c.ended
      AND (m.text, m.actor, m.embedding, m.embedding_model)
          IS NOT DISTINCT FROM (c.text, c.actor, c.embedding, c.embedding_model)
      AND v.tenant = $1 AND v.memory_id = c.memory_id AND v.version = c.before
    RETURNING 1
), replaced AS (
    UPDATE memory_items m SET
        namespace = c.namespace, key = c.key, coordinate = c.coordinate::float8[], kind = c.kind,
        schema_type = c.schema_type, schema_version = c.schema_version, persona_id = c.persona_id, text = c.text,
        payload = c.payload, tags = c.tags::text[], actor = c.actor, session_id = c.session_id,
        sequence = c.sequence, author = c.author, source = c.source, confidence = c.confidence,
        importance = c.importance, relevance = c.relevance, occurred_at = c.occurred_at, expires_at = c.expires_at,
        embedding = c.embedding, embedding_model = c.embedding_model, created_at = c.created_at,
        updated_at = c.updated_at, version = c.version, deleted = c.deleted, content_hash = c.content_hash,
        origin_at = c.origin_at, origin_brain = c.origin_brain, term_keys = c.term_keys::bigint[],
        term_counts = c.term_counts::int[], length = c.length, text_key = c.text_key,
        place_key = c.place_key
    FROM changed c
    WHERE c.before > 0 AND m.tenant = $1 AND m.memory_id = c.memory_id AND m.version = c.before
    RETURNING 1
), inserted AS (
    INSERT INTO memory_items (
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
    -- After the updates, which may have given up a key that is taken here.
    WHERE c.before = 0 AND (SELECT count(*) FROM replaced) >= 0
    -- Another server made the same memory or key a moment ago: counted below, and the batch starts over.
    ON CONFLICT DO NOTHING
    RETURNING 1
), queued AS (
    INSERT INTO index_jobs AS j (tenant, memory_id, version, due_at, queued_at, moved_at)
    SELECT $1, c.memory_id, c.version, $2, $2, $2 FROM changed c
    ON CONFLICT (tenant, memory_id) DO UPDATE SET
        version = excluded.version,
        -- While a worker holds the memory nobody else may take it; the worker sees the new version when it settles.
        due_at = GREATEST(excluded.due_at, j.leased_until),
        queued_at = CASE WHEN j.due_at IS NULL THEN excluded.queued_at ELSE j.queued_at END,
        indexed_epoch = 0, moved_at = excluded.moved_at, attempts = 0, poisoned = false, reason = ''
    RETURNING 1
), bumped AS (
    INSERT INTO tenant_revisions AS t (tenant, revision)
    SELECT $1, $4::bigint
    WHERE (SELECT count(*) FROM replaced) + (SELECT count(*) FROM inserted) + (SELECT count(*) FROM queued)
        + (SELECT count(*) FROM kept) + (SELECT count(*) FROM trimmed) + (SELECT count(*) FROM uncounted)
        + (SELECT count(*) FROM counted) + (SELECT count(*) FROM still_embedded) >= 0
    ON CONFLICT (tenant) DO UPDATE SET revision = t.revision + excluded.revision
    RETURNING revision - $4::bigint AS before
), logged AS (
    INSERT INTO changelog (tenant, revision, ordinal, op, memory_id, namespace, version, target_id, relation, at)
    SELECT $1, b.before + e.step, e.ordinal, e.op, e.memory_id, e.namespace, e.version, e.target_id, e.relation, $2
    FROM bumped b CROSS JOIN unnest(
        $42::int[], $43::int[], $44::text[], $45::uuid[], $46::text[], $47::bigint[], $48::uuid[], $49::text[]
    ) AS e (step, ordinal, op, memory_id, namespace, version, target_id, relation)
), answered AS (
    INSERT INTO idempotency (tenant, day, request_id, request_hash, memory_id, revision, version, created, changed,
                             created_at, updated_at, expires_at, snapshot, warnings, recorded_at)
    SELECT $1, a.day, a.request_id, a.request_hash, a.memory_id, b.before + a.step, a.version, a.created, a.changed,
           a.created_at, a.updated_at, a.expires_at, a.snapshot, a.warnings::text[], $2
    FROM bumped b CROSS JOIN unnest(
        $50::date[], $51::text[], $52::bytea[], $53::uuid[], $54::int[], $55::bigint[], $56::bool[], $57::bool[],
        $58::timestamptz[], $59::timestamptz[], $60::timestamptz[], $61::text[], $62::text[]
    ) AS a (day, request_id, request_hash, memory_id, step, version, created, changed, created_at, updated_at,
            expires_at, snapshot, warnings)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT before FROM bumped) AS before,
       (SELECT count(*) FROM inserted) + (SELECT count(*) FROM replaced) AS written,
       (SELECT count(*) FROM answered) AS answered;
