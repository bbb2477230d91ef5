-- Read a task.
SELECT * FROM index_tasks WHERE task_id = $1;
