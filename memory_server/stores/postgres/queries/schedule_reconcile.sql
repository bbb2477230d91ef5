-- Enter a comparison of everything when the last one ended so long ago, and drop old entries of the timetable.
-- $1 id, $2 seconds
WITH dropped AS (
    DELETE FROM index_tasks WHERE scheduled AND ended_at < statement_timestamp() - interval '7 days'
)
INSERT INTO index_tasks (task_id, kind, repair, scheduled)
SELECT $1, 'reconcile', true, true
WHERE NOT EXISTS (
    SELECT FROM index_tasks
    WHERE kind = 'reconcile' AND tenant = '' AND collection = ''
      AND (state IN ('waiting', 'running') OR (repair AND created_at > statement_timestamp() - make_interval(secs => $2)))
)
ON CONFLICT DO NOTHING
RETURNING task_id;
