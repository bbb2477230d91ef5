-- Keep the answers of requests that changed nothing.
-- $1 tenant, $2 now, $3 the revision they saw, $4 … $16 answers
WITH answered AS (
    INSERT INTO idempotency (tenant, day, request_id, request_hash, memory_id, revision, version, created, changed,
                             created_at, updated_at, expires_at, snapshot, warnings, recorded_at)
    SELECT $1, a.day, a.request_id, a.request_hash, a.memory_id, $3::bigint, a.version, a.created, a.changed,
           a.created_at, a.updated_at, a.expires_at, a.snapshot, a.warnings::text[], $2
    FROM unnest(
        $4::date[], $5::text[], $6::bytea[], $7::uuid[], $8::int[], $9::bigint[], $10::bool[], $11::bool[],
        $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::text[], $16::text[]
    ) AS a (day, request_id, request_hash, memory_id, step, version, created, changed, created_at, updated_at,
            expires_at, snapshot, warnings)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) AS answered FROM answered;
