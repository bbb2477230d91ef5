-- Lease a locked job. Its due_at moves to the end of the lease, so that nobody else finds it before, not even when the
-- memory is written again.
-- $1 tenant, $2 id, $3 seconds of lease, $4 the lease
UPDATE index_jobs SET
    due_at = statement_timestamp() + make_interval(secs => $3::float8),
    leased_until = statement_timestamp() + make_interval(secs => $3::float8),
    lease = $4::uuid,
    attempts = attempts + 1
WHERE tenant = $1 AND memory_id = $2::uuid;
