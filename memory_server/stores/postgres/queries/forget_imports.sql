-- Delete jobs of the tenant that have not moved for long, with their refusals.
-- $1 tenant, $2 for how long
DELETE FROM import_jobs WHERE tenant = $1 AND updated_at < clock_timestamp() - $2::interval;
