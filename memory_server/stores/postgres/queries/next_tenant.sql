-- Find the next tenant with index rows, by name; of a shared collection only tenants without one of their own.
-- $1 from which name on, $2 profile, $3 the collection's tenant or empty
SELECT j.tenant FROM index_jobs j
WHERE j.tenant >= $1 AND ($3 = '' OR j.tenant = $3)
  AND COALESCE((SELECT p.profile FROM embedding_profiles p WHERE p.tenant = j.tenant), $2) = $2
  AND ($3 <> '' OR NOT EXISTS (SELECT FROM index_collections c WHERE c.profile = $2 AND c.tenant = j.tenant))
ORDER BY j.tenant LIMIT 1;
