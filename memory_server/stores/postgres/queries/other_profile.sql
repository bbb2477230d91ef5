-- The profile, other than the given one, that most tenants are embedded with.
SELECT profile, dimension, count(*) AS tenants
FROM embedding_profiles WHERE profile <> $1
GROUP BY profile, dimension ORDER BY tenants DESC, profile LIMIT 1
