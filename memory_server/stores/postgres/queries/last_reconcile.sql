-- Read the last comparison that ended well.
SELECT * FROM index_tasks WHERE kind = 'reconcile' AND state = 'done' ORDER BY ended_at DESC LIMIT 1;
