-- Have a tenant's memories searched by the vectors of another profile.
-- $1 tenant, $2 the profile it has, $3 the one it gets, $4 its dimension
UPDATE embedding_profiles SET profile = $3, dimension = $4, since = statement_timestamp()
WHERE tenant = $1 AND profile = $2 RETURNING tenant;
