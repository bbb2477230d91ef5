-- One page of a tenant's snapshots without contents, by session id.
SELECT session_id, brain_id, persona_id, epoch, version, sequence, item_count, omitted_items, content_format,
       '\x'::bytea AS snapshot, updated_at
FROM wm_sessions
WHERE tenant = $1 AND session_id > $2 AND ($3 = '' OR brain_id = $3) AND ($4 = '' OR persona_id = $4)
  AND ($5::timestamptz IS NULL OR updated_at > $5)
ORDER BY session_id LIMIT $6;
