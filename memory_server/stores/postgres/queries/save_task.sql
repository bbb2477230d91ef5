-- Note how far a task is and prolong its lease; no row when the lease was lost.
-- $1 id, $2 lease, $3 seconds, $4 progress, $5 done, $6 total, $7 … $11 compared, missing, outdated, orphaned, repaired,
-- $12 state, $13 reason, $14 message
UPDATE index_tasks SET
    leased_until = statement_timestamp() + make_interval(secs => $3), progress = $4, done = $5, total = $6,
    compared = $7, missing = $8, outdated = $9, orphaned = $10, repaired = $11, state = $12, reason = $13, message = $14,
    ended_at = CASE WHEN $12 IN ('done', 'failed') THEN clock_timestamp() END
WHERE task_id = $1 AND lease = $2
RETURNING ended_at;
