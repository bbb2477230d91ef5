-- Change what is not NULL of a tenant at a version, or at any; no row when there is none at that version.
-- $1 name, $2 version, $3 display name, $4 labels, $5 scorer, $6 recall weights, $7 state, $8 suspend cause
UPDATE tenants SET
    display_name = COALESCE($3, display_name),
    labels = COALESCE($4, labels),
    scorer = COALESCE($5, scorer),
    recall_weights = COALESCE($6, recall_weights),
    state = COALESCE($7, state),
    suspend_cause = COALESCE($8, suspend_cause),
    updated_at = clock_timestamp(),
    version = version + 1
WHERE tenant = $1 AND ($2::bigint IS NULL OR version = $2)
RETURNING *;
