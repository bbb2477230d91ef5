-- Read a page of memories that cannot be indexed, oldest first.
-- $1 tenant or empty, $2 … $4 the last page's end or NULL, $5 limit
SELECT tenant, memory_id, version, attempts, reason, due_at, queued_at FROM index_jobs
WHERE poisoned AND ($1 = '' OR tenant = $1)
  AND ($2::timestamptz IS NULL OR (queued_at, tenant, memory_id) > ($2, $3::text, $4::uuid))
ORDER BY queued_at, tenant, memory_id LIMIT $5;
