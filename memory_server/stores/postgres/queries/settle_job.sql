-- Mark a claimed version as indexed. A row that moved on meanwhile keeps the job due.
-- $1 tenant, $2 id, $3 lease, $4 version, $5 the epoch of the collection, 0 if it was lost
UPDATE index_jobs j SET
    indexed_version = CASE WHEN j.version = $4::bigint AND $5::bigint > 0 THEN $4::bigint ELSE j.indexed_version END,
    indexed_epoch = CASE WHEN j.version = $4::bigint THEN $5::bigint ELSE j.indexed_epoch END,
    moved_at = CASE WHEN j.version = $4::bigint THEN statement_timestamp() ELSE j.moved_at END,
    due_at = CASE WHEN j.version = $4::bigint AND $5::bigint > 0 THEN NULL ELSE statement_timestamp() END,
    attempts = 0, reason = '', poisoned = false, lease = NULL, leased_until = NULL
WHERE j.tenant = $1 AND j.memory_id = $2::uuid AND j.lease = $3::uuid;
