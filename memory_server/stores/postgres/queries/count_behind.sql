-- Count the rows the index does not hold, up to a limit.
-- $1 tenant, then the values of the epoch and the limit
WITH {epoch}
SELECT count(*) FROM (
    SELECT FROM index_jobs j
    WHERE j.tenant = $1 AND j.indexed_epoch < (SELECT epoch FROM searched)
    LIMIT {limit}
) AS behind;
