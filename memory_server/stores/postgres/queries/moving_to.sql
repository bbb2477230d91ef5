-- Whether memories are on their way to a profile's collections.
-- $1 profile
SELECT EXISTS (SELECT FROM index_tasks WHERE kind = 're_embed' AND profile = $1 AND state IN ('waiting', 'running'));
