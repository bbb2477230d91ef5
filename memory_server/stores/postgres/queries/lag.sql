-- Count the jobs that wait, and the age of the oldest; rows of a lost collection that are not queued again yet count too.
-- $1 the tenant, or NULL for all
SELECT count(*) FILTER (WHERE NOT j.poisoned) + (
           SELECT count(*)
           FROM index_collections c
           JOIN index_jobs k ON k.due_at IS NULL AND k.indexed_epoch < c.epoch AND k.tenant >= c.requeue_from
           WHERE c.requeue_from IS NOT NULL AND (c.tenant = '' OR k.tenant = c.tenant)
             AND ($1::text IS NULL OR k.tenant = $1::text)
       ) AS rows,
       COALESCE(extract(epoch FROM statement_timestamp() - min(j.queued_at) FILTER (WHERE NOT j.poisoned)), 0)::float8
           AS oldest_s,
       count(*) FILTER (WHERE j.poisoned) AS poisoned
FROM index_jobs j
WHERE j.due_at IS NOT NULL AND ($1::text IS NULL OR j.tenant = $1::text);
