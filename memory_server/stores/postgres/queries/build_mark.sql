-- Note that a memory is in the collection of another epoch as well, unless it has moved on.
-- $1 tenant, $2 id, $3 version, $4 the collection's epoch, $5 the other's
UPDATE index_jobs SET indexed_epoch = $5::bigint
WHERE tenant = $1 AND memory_id = $2::uuid AND version = $3::bigint AND indexed_version = $3::bigint
  AND due_at IS NULL AND indexed_epoch >= $4::bigint AND indexed_epoch < $5::bigint;
