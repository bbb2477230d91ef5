-- Delete a session's snapshot, if an epoch is given only of that epoch.
DELETE FROM wm_sessions WHERE tenant = $1 AND session_id = $2 AND ($3::bigint IS NULL OR epoch = $3)
RETURNING session_id;
