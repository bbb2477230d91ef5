-- Read the tenants that are embedded with another profile.
-- $1 the profile, $2 only this tenant, or empty
SELECT tenant, profile, dimension FROM embedding_profiles
WHERE profile <> $1 AND ($2 = '' OR tenant = $2) ORDER BY tenant;
