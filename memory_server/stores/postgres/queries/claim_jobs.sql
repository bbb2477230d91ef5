-- Claim due jobs of some tenants, the oldest of each. A claim moves due_at to the end of its lease, so that nobody else
-- finds the job before, not even when the memory is written again.
-- $1 tenants, $2 how many of each, $3 how many in all, $4 seconds of lease, $5 the lease, $6 only jobs that failed often
WITH taken AS MATERIALIZED (
    SELECT d.tenant, d.memory_id
    FROM unnest($1::text[]) AS t (tenant)
    CROSS JOIN LATERAL (
        SELECT j.tenant, j.memory_id
        FROM index_jobs j
        WHERE j.tenant = t.tenant AND j.due_at <= statement_timestamp() AND (j.attempts >= 3) = $6::bool
        ORDER BY j.due_at
        LIMIT $2::bigint
        FOR UPDATE SKIP LOCKED
    ) AS d
    LIMIT $3::bigint
)
UPDATE index_jobs j SET
    due_at = statement_timestamp() + make_interval(secs => $4::float8),
    leased_until = statement_timestamp() + make_interval(secs => $4::float8),
    lease = $5::uuid,
    attempts = j.attempts + 1
FROM taken
WHERE j.tenant = taken.tenant AND j.memory_id = taken.memory_id
RETURNING j.tenant, j.memory_id, j.attempts, j.version;
