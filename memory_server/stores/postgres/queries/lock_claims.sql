-- Let one server at a time choose a task.
SELECT pg_advisory_xact_lock(hashtext('soma index tasks'));
