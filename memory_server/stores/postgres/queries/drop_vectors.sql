-- Delete a tenant's vectors of a profile, some at a time.
-- $1 tenant, $2 profile, $3 limit
DELETE FROM memory_vectors WHERE tenant = $1 AND profile = $2 AND memory_id = ANY (ARRAY(
    SELECT memory_id FROM memory_vectors WHERE tenant = $1 AND profile = $2 LIMIT $3
));
