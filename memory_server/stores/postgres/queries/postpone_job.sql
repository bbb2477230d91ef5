-- Give a job back: after growing pauses where the job itself failed, soon where a whole store is away. After eight
-- failures a job counts as poisoned and is tried once an hour.
-- $1 tenant, $2 id, $3 lease, $4 reason, $5 whether the failure counts
UPDATE index_jobs j SET
    attempts = CASE WHEN $5::bool THEN j.attempts ELSE GREATEST(0, j.attempts - 1) END,
    poisoned = $5::bool AND j.attempts >= 8,
    reason = $4,
    due_at = statement_timestamp() + make_interval(secs => (0.5 + random() / 2) * CASE
        WHEN NOT $5::bool THEN 1
        WHEN j.attempts >= 8 THEN 3600
        ELSE LEAST(300, power(2, j.attempts - 1))
    END),
    lease = NULL, leased_until = NULL
WHERE j.tenant = $1 AND j.memory_id = $2::uuid AND j.lease = $3::uuid;
