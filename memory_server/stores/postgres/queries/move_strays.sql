-- Queue a tenant's memories that its collection does not hold and nobody is bringing there.
-- $1 tenant, $2 the collection's epoch, $3 whether jobs under way are taken from their workers as well
UPDATE index_jobs SET due_at = statement_timestamp(), queued_at = statement_timestamp(), lease = NULL, leased_until = NULL
WHERE tenant = $1 AND ((indexed_epoch < $2::bigint AND due_at IS NULL) OR ($3 AND lease IS NOT NULL));
