-- Keep versions that came and went within one transaction; the parameters are columns of memory_versions as arrays.
INSERT INTO memory_versions (
    tenant, memory_id, namespace, key, coordinate, kind, schema_type, schema_version, persona_id, text, payload, tags,
    actor, session_id, sequence, author, source, confidence, importance, relevance, occurred_at, expires_at, embedding,
    embedding_model, created_at, updated_at, version)
SELECT $1, p.memory_id, p.namespace, p.key, p.coordinate::float8[], p.kind, p.schema_type, p.schema_version,
       p.persona_id, p.text, p.payload, p.tags::text[], p.actor, p.session_id, p.sequence, p.author, p.source,
       p.confidence, p.importance, p.relevance, p.occurred_at, p.expires_at, p.embedding, p.embedding_model,
       p.created_at, p.updated_at, p.version
FROM unnest(
    $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
    $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::text[], $17::text[], $18::float8[],
    $19::float8[], $20::float8[], $21::timestamptz[], $22::timestamptz[], $23::bytea[], $24::text[],
    $25::timestamptz[], $26::timestamptz[], $27::bigint[]
) AS p (memory_id, namespace, key, coordinate, kind, schema_type, schema_version, persona_id, text, payload, tags,
        actor, session_id, sequence, author, source, confidence, importance, relevance, occurred_at, expires_at,
        embedding, embedding_model, created_at, updated_at, version);
