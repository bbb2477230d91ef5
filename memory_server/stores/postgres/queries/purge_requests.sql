-- Delete old first answers of requests whose id names no day.
-- $1 how many days they are kept, $2 limit
DELETE FROM idempotency_rest r
WHERE r.ctid = ANY (ARRAY(
    SELECT i.ctid FROM idempotency_rest i
    WHERE i.recorded_at < statement_timestamp() - make_interval(days => $1)
    LIMIT $2::bigint
));
