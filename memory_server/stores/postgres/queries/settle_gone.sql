-- Drop the job of a memory that has left the index.
-- $1 tenant, $2 id, $3 lease, $4 version
DELETE FROM index_jobs WHERE tenant = $1 AND memory_id = $2::uuid AND lease = $3::uuid AND version = $4::bigint;
