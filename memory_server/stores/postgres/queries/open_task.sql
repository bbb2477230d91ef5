-- Enter a task, unless one of its scope is open.
-- $1 id, $2 kind, $3 tenant, $4 collection, $5 profile, $6 dimension, $7 repair, $8 poisoned only, $9 scheduled
INSERT INTO index_tasks (task_id, kind, tenant, collection, profile, dimension, repair, poisoned_only, scheduled)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT DO NOTHING
RETURNING *;
