-- Keep a snapshot: the first of a session under epoch 1, a later one if it is newer and not another owner's.
INSERT INTO wm_sessions (tenant, session_id, brain_id, persona_id, epoch, version, sequence, item_count, omitted_items,
                         content_format, snapshot, updated_at)
VALUES ($1, $2, $3, $4, 1, $6, $7, $8, $9, $10, $11, clock_timestamp())
ON CONFLICT (tenant, session_id) DO UPDATE SET
    brain_id = excluded.brain_id, persona_id = excluded.persona_id, epoch = $5, version = excluded.version,
    sequence = excluded.sequence, item_count = excluded.item_count, omitted_items = excluded.omitted_items,
    content_format = excluded.content_format, snapshot = excluded.snapshot, updated_at = excluded.updated_at
WHERE $5 > wm_sessions.epoch
   OR ($5 = wm_sessions.epoch AND excluded.version > wm_sessions.version AND excluded.brain_id = wm_sessions.brain_id)
RETURNING epoch, version;
