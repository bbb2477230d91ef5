-- Read the open task of a scope.
-- $1 kind, $2 tenant, $3 collection, $4 profile, $5 repair, $6 poisoned only
SELECT * FROM index_tasks
WHERE kind = $1 AND tenant = $2 AND collection = $3 AND profile = $4 AND repair = $5 AND poisoned_only = $6
  AND state IN ('waiting', 'running');
