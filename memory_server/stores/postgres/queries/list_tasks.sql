-- Read a page of tasks, newest first.
-- $1 tenant or empty, $2 state or empty, $3 $4 the last page's end or NULL, $5 limit
SELECT * FROM index_tasks
WHERE ($1 = '' OR tenant = $1) AND ($2 = '' OR state = $2)
  AND ($3::timestamptz IS NULL OR created_at < $3 OR (created_at = $3 AND task_id > $4::uuid))
ORDER BY created_at DESC, task_id LIMIT $5;
