-- The profile, other than the given ones, that most tenants are embedded with.
SELECT profile, dimension, count(*) AS tenants
FROM embedding_profiles WHERE profile <> ALL ($1::text[])
GROUP BY profile, dimension ORDER BY tenants DESC, profile LIMIT 1
