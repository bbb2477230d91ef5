-- Read a page of the records a job refused, in their order.
-- $1 tenant, $2 id, $3 behind which record, $4 how many
SELECT record, reason, description, violations, metadata
FROM import_refusals
WHERE tenant = $1 AND import_id = $2::uuid AND record > $3::bigint
ORDER BY record
LIMIT $4::bigint;
