-- Read a session's snapshot.
SELECT session_id, brain_id, persona_id, epoch, version, sequence, item_count, omitted_items, content_format, snapshot,
       updated_at
FROM wm_sessions WHERE tenant = $1 AND session_id = $2;
