-- Delete a count that fell to nothing, so that no trace of a forgotten word stays.
-- $1 tenant, $2 key, $3 namespace
DELETE FROM term_stats WHERE tenant = $1 AND term_key = $2 AND namespace = $3 AND frequency <= 0;
