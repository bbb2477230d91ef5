-- Find the first answers of repeated requests; {day} is a literal, so that one partition is planned and locked.
-- $1 tenant, $2 request ids
SELECT request_id, request_hash, memory_id, revision, version, created, changed, created_at, updated_at, expires_at,
       snapshot, warnings
FROM idempotency
WHERE tenant = $1 AND day = '{day}'::date AND request_id = ANY ($2::text[]);
