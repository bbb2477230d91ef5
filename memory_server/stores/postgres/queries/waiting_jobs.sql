-- Count the index jobs of a tenant that wait, up to a number.
-- $1 tenant, $2 the number
SELECT count(*) FROM (
    SELECT 1 FROM index_jobs j WHERE j.tenant = $1 AND j.due_at IS NOT NULL AND NOT j.poisoned LIMIT $2::bigint
) AS found;
