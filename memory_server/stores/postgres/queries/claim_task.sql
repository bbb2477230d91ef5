-- Take the oldest task that nobody is at work on. Of those that fill collections one at a time is done, since what they
-- note about a memory is one number.
-- $1 lease, $2 its seconds
UPDATE index_tasks t SET state = 'running', lease = $1, leased_until = statement_timestamp() + make_interval(secs => $2)
WHERE t.task_id = (
    SELECT o.task_id FROM index_tasks o
    WHERE o.state IN ('waiting', 'running')
      AND (o.leased_until IS NULL OR o.leased_until < statement_timestamp())
      AND (o.kind = 'reconcile' OR NOT EXISTS (
          SELECT FROM index_tasks r
          WHERE r.kind <> 'reconcile' AND r.state = 'running' AND r.leased_until >= statement_timestamp()
      ))
    ORDER BY o.scheduled, o.created_at LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING t.*;
