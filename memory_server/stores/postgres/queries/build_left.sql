-- Count what another collection does not hold yet.
-- $1 tenant or empty, $2 the collection's epoch, $3 the other's
SELECT count(*) FROM index_jobs
WHERE ($1 = '' OR tenant = $1) AND due_at IS NULL AND indexed_epoch >= $2::bigint AND indexed_epoch < $3::bigint;
