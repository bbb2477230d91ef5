-- Find memories of any tenant that have expired, the longest first.
SELECT tenant, memory_id FROM memory_items
WHERE expires_at <= statement_timestamp() AND expires_at IS NOT NULL AND NOT deleted
ORDER BY expires_at LIMIT $1;
