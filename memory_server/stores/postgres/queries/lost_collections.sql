-- Find collections whose rows are not all queued again; one worker at a time does that.
SELECT c.name, c.epoch, c.profile, c.tenant, c.requeue_from FROM index_collections c
WHERE c.requeue_from IS NOT NULL
ORDER BY c.name LIMIT 1
FOR UPDATE SKIP LOCKED;
