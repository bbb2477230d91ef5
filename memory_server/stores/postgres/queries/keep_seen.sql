-- Keep what a dry run would have stored.
-- $1 tenant, $2 id of the job, $3 … $9 memories
INSERT INTO import_seen (tenant, import_id, memory_id, namespace, key, coordinate, content_hash, version, expires_at)
SELECT $1, $2::uuid, s.memory_id, s.namespace, s.key, s.coordinate::float8[], s.content_hash, s.version, s.expires_at
FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bigint[], $9::timestamptz[])
    AS s (memory_id, namespace, key, coordinate, content_hash, version, expires_at)
ON CONFLICT (tenant, import_id, memory_id) DO UPDATE SET
    namespace = excluded.namespace, key = excluded.key, coordinate = excluded.coordinate,
    content_hash = excluded.content_hash, version = excluded.version, expires_at = excluded.expires_at;
