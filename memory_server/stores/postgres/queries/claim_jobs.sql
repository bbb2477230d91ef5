-- Find and lock due jobs of some tenants, the oldest of each.
-- $1 tenants, $2 how many of each, $3 how many in all, $4 only jobs that failed often
SELECT d.tenant, d.memory_id, d.attempts, d.version
FROM unnest($1::text[]) AS t (tenant)
CROSS JOIN LATERAL (
    SELECT j.tenant, j.memory_id, j.attempts, j.version
    FROM index_jobs j
    WHERE j.tenant = t.tenant AND j.due_at <= statement_timestamp() AND (j.attempts >= 3) = $4::bool
    ORDER BY j.due_at
    LIMIT $2::bigint
    FOR UPDATE SKIP LOCKED
) AS d
LIMIT $3::bigint;
