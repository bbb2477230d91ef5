-- End a job.
-- $1 tenant, $2 id, $3 state, $4 total
UPDATE import_jobs AS j SET
    state = $3, total = CASE WHEN $4::bigint >= 0 THEN $4::bigint ELSE j.total END,
    leased_until = NULL, updated_at = clock_timestamp()
WHERE j.tenant = $1 AND j.import_id = $2::uuid AND j.state = 'active'
RETURNING {columns};
