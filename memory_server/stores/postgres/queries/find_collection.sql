-- Find the collection of a tenant: its own, or the shared one if it has none and needs none; and its profile so far.
-- $1 tenant, $2 profile
SELECT c.name, c.epoch, c.profile, c.dimension, c.tenant, c.filled, t.dedicated,
       p.profile AS tenant_profile, p.dimension AS tenant_dimension
FROM (SELECT COALESCE((SELECT t.dedicated FROM tenants t WHERE t.tenant = $1), false) AS dedicated) AS t
LEFT JOIN embedding_profiles p ON p.tenant = $1
LEFT JOIN LATERAL (
    SELECT * FROM index_collections c
    WHERE c.profile = $2 AND (c.tenant = $1 OR (c.tenant = '' AND NOT t.dedicated))
    ORDER BY c.tenant DESC LIMIT 1
) AS c ON true;
