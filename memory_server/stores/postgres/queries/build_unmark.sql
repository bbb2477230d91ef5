-- Forget what an abandoned move noted about a tenant's memories: they are in the collection they are searched in.
-- $1 tenant, $2 the collection's epoch
UPDATE index_jobs SET indexed_epoch = $2::bigint WHERE tenant = $1 AND indexed_epoch > $2::bigint;
