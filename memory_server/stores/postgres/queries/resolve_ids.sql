-- Find which of these memories live.
-- $1 tenant, $2 ids
SELECT m.memory_id FROM memory_items m WHERE m.tenant = $1 AND m.memory_id = ANY ($2::uuid[]) AND {live};
