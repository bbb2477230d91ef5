-- Take the lease of a job: whoever held it before writes nothing more. A job that has ended is only read.
-- $1 tenant, $2 id, $3 how long the lease counts as held
UPDATE import_jobs AS j SET
    fencing = CASE WHEN j.state = 'active' THEN j.fencing + 1 ELSE j.fencing END,
    leased_until = CASE WHEN j.state = 'active' THEN clock_timestamp() + $3::interval END
WHERE j.tenant = $1 AND j.import_id = $2::uuid
RETURNING {columns}, j.fencing;
