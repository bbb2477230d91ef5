-- Lock a job and read what a commit must know of it.
-- $1 tenant, $2 id
SELECT {columns}, j.fencing
FROM import_jobs j
WHERE j.tenant = $1 AND j.import_id = $2::uuid
FOR UPDATE;
