-- Read the task that is at work.
SELECT task_id FROM index_tasks WHERE state = 'running' ORDER BY created_at LIMIT 1;
