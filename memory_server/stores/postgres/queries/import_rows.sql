-- Write what was copied into import_rows, as write_rows.sql writes a batch, with links: all of it is one revision.
-- The placeholders are those of write_rows.sql.
-- $1 tenant, $2 now, $3 the import, $4 … $13 links, $14 … $20 further lines of the changelog
WITH changed AS (
    SELECT * FROM import_rows
), {replacing}counted AS (
    INSERT INTO term_changes (tenant, namespace, sign, term_keys, length)
    SELECT $1, c.namespace, 1, c.term_keys, c.length
    FROM changed c {old}
    WHERE NOT c.deleted {recounted}
    RETURNING 1
), inserted AS (
    INSERT INTO memory_items (
        tenant, memory_id, namespace, key, coordinate, kind, schema_type, schema_version, persona_id, text, payload,
        tags, actor, session_id, sequence, author, source, confidence, importance, relevance, occurred_at, expires_at,
        embedding, embedding_model, created_at, updated_at, version, deleted, content_hash, origin_at, origin_brain,
        term_keys, term_counts, length, text_key, place_key)
    SELECT $1, c.memory_id, c.namespace, c.key, c.coordinate, c.kind, c.schema_type, c.schema_version, c.persona_id,
           c.text, c.payload, c.tags, c.actor, c.session_id, c.sequence, c.author, c.source, c.confidence,
           c.importance, c.relevance, c.occurred_at, c.expires_at, c.embedding, c.embedding_model, c.created_at,
           c.updated_at, c.version, c.deleted, c.content_hash, c.origin_at, c.origin_brain, c.term_keys,
           c.term_counts, c.length, c.text_key, c.place_key
    FROM changed c
    -- After the rows that are replaced, which may have given up a key that is taken here.
    WHERE c.before = 0 AND {replaced} >= 0
    -- Somebody made the same memory or key a moment ago: counted below, and the commit starts over.
    ON CONFLICT DO NOTHING
    RETURNING 1
), queued AS (
    INSERT INTO index_jobs AS j (tenant, memory_id, version, due_at, queued_at, moved_at, import_id)
    SELECT $1, c.memory_id, c.version, $2, $2, $2, $3::uuid FROM changed c
    ON CONFLICT (tenant, memory_id) DO UPDATE SET
        version = excluded.version,
        due_at = GREATEST(excluded.due_at, j.leased_until),
        queued_at = CASE WHEN j.due_at IS NULL THEN excluded.queued_at ELSE j.queued_at END,
        indexed_epoch = 0, moved_at = excluded.moved_at, attempts = 0, poisoned = false, reason = '',
        import_id = excluded.import_id
    RETURNING 1
), linked AS (
    INSERT INTO links AS l (tenant, source_id, target_id, relation, strength, metadata, valid_from, valid_until,
                            version, created_at, updated_at)
    SELECT $1, p.*
    FROM unnest($4::uuid[], $5::uuid[], $6::text[], $7::float8[], $8::text[], $9::timestamptz[], $10::timestamptz[],
                $11::bigint[], $12::timestamptz[], $13::timestamptz[]) AS p
    ON CONFLICT (tenant, source_id, relation, target_id) DO UPDATE SET
        strength = excluded.strength, metadata = excluded.metadata, valid_from = excluded.valid_from,
        valid_until = excluded.valid_until, version = excluded.version, created_at = excluded.created_at,
        updated_at = excluded.updated_at
    RETURNING 1
), bumped AS (
    INSERT INTO tenant_revisions AS t (tenant, revision)
    SELECT $1, 1
    WHERE {replaced} + (SELECT count(*) FROM inserted) + (SELECT count(*) FROM queued)
        + (SELECT count(*) FROM counted) + (SELECT count(*) FROM linked) >= 0
    ON CONFLICT (tenant) DO UPDATE SET revision = t.revision + 1
    RETURNING revision
), logged AS (
    INSERT INTO changelog (tenant, revision, ordinal, op, memory_id, namespace, version, target_id, relation, at)
    SELECT $1, b.revision, c.ordinal, CASE WHEN c.deleted THEN 'forget' ELSE 'put' END, c.memory_id, c.namespace,
           c.version, NULL, '', $2
    FROM bumped b CROSS JOIN changed c
    UNION ALL
    SELECT $1, b.revision, e.ordinal, e.op, e.memory_id, e.namespace, e.version, e.target_id, e.relation, $2
    FROM bumped b CROSS JOIN unnest(
        $14::int[], $15::text[], $16::uuid[], $17::text[], $18::bigint[], $19::uuid[], $20::text[]
    ) AS e (ordinal, op, memory_id, namespace, version, target_id, relation)
)
SELECT (SELECT revision FROM bumped) AS revision, (SELECT count(*) FROM inserted) + {written} AS written;
