-- Write a batch: rows, history, term changes, index jobs, then the revision counter, changelog and answers.
-- Every part sees the state before the batch. The counter's row is locked last and so for the shortest time: its
-- part waits for the parts it counts. Rows are updated in the order given: who gives up a key before who takes it.
-- The placeholders are empty or 0 where all rows are new, which makes a plan of half the size.
-- $1 tenant, $2 now, $3 number of revisions, $4 … $40 changed rows, $41 … $48 changelog, $49 … $61 answers
WITH changed AS MATERIALIZED (
    SELECT * FROM unnest(
        $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
        $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bigint[], $18::text[], $19::text[],
        $20::float8[], $21::float8[], $22::float8[], $23::timestamptz[], $24::timestamptz[], $25::bytea[],
        $26::text[], $27::timestamptz[], $28::timestamptz[], $29::bigint[], $30::bool[], $31::bytea[],
        $32::timestamptz[], $33::text[], $34::text[], $35::text[], $36::int[], $37::bigint[], $38::bigint[],
        $39::bigint[], $40::bool[]
    ) AS c (memory_id, namespace, key, coordinate, kind, schema_type, schema_version, persona_id, text, payload, tags,
            actor, session_id, sequence, author, source, confidence, importance, relevance, occurred_at, expires_at,
            embedding, embedding_model, created_at, updated_at, version, deleted, content_hash, origin_at,
            origin_brain, term_keys, term_counts, length, text_key, place_key, before, ended)
), {replacing}counted AS (
    INSERT INTO term_changes (tenant, namespace, sign, term_keys, length)
    SELECT $1, c.namespace, 1, c.term_keys::bigint[], c.length
    FROM changed c {old}
    WHERE NOT c.deleted {recounted}
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
    WHERE c.before = 0 AND {replaced} >= 0
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
    SELECT $1, $3::bigint
    WHERE {replaced} + (SELECT count(*) FROM inserted) + (SELECT count(*) FROM queued)
        + (SELECT count(*) FROM counted) >= 0
    ON CONFLICT (tenant) DO UPDATE SET revision = t.revision + excluded.revision
    RETURNING revision - $3::bigint AS before
), logged AS (
    INSERT INTO changelog (tenant, revision, ordinal, op, memory_id, namespace, version, target_id, relation, at)
    SELECT $1, b.before + e.step, e.ordinal, e.op, e.memory_id, e.namespace, e.version, e.target_id, e.relation, $2
    FROM bumped b CROSS JOIN unnest(
        $41::int[], $42::int[], $43::text[], $44::uuid[], $45::text[], $46::bigint[], $47::uuid[], $48::text[]
    ) AS e (step, ordinal, op, memory_id, namespace, version, target_id, relation)
), answered AS (
    INSERT INTO idempotency (tenant, day, request_id, request_hash, memory_id, revision, version, created, changed,
                             created_at, updated_at, expires_at, snapshot, warnings, recorded_at)
    SELECT $1, a.day, a.request_id, a.request_hash, a.memory_id, b.before + a.step, a.version, a.created, a.changed,
           a.created_at, a.updated_at, a.expires_at, a.snapshot, a.warnings::text[], $2
    FROM bumped b CROSS JOIN unnest(
        $49::date[], $50::text[], $51::bytea[], $52::uuid[], $53::int[], $54::bigint[], $55::bool[], $56::bool[],
        $57::timestamptz[], $58::timestamptz[], $59::timestamptz[], $60::text[], $61::text[]
    ) AS a (day, request_id, request_hash, memory_id, step, version, created, changed, created_at, updated_at,
            expires_at, snapshot, warnings)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT before FROM bumped) AS before,
       (SELECT count(*) FROM inserted) + {written} AS written,
       (SELECT count(*) FROM answered) AS answered;
