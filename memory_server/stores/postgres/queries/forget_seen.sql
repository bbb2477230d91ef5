-- Delete what a dry run has seen, once it has ended.
-- $1 tenant, $2 id
DELETE FROM import_seen WHERE tenant = $1 AND import_id = $2::uuid;
