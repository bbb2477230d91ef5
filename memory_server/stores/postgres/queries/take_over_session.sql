-- Make a brain the owner of a session under a new epoch, unless it is already, and read the snapshot.
UPDATE wm_sessions SET epoch = epoch + (brain_id <> $3)::int, brain_id = $3 WHERE tenant = $1 AND session_id = $2
RETURNING session_id, brain_id, persona_id, epoch, version, sequence, item_count, omitted_items, content_format,
          snapshot, updated_at;
