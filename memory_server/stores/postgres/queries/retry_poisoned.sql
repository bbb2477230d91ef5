-- Try again what is poisoned.
-- $1 tenant or empty
UPDATE index_jobs SET due_at = statement_timestamp(), attempts = 0, poisoned = false
WHERE poisoned AND ($1 = '' OR tenant = $1);
