-- Delete a tenant's oldest changes, and note how far: who watches from before that is told so.
-- $1 tenant, $2 how many days they are kept, $3 limit
WITH oldest AS MATERIALIZED (
    SELECT max(c.revision) AS revision
    FROM (SELECT l.revision, l.at FROM changelog l WHERE l.tenant = $1 ORDER BY l.revision LIMIT $3::bigint) AS c
    WHERE c.at < statement_timestamp() - make_interval(days => $2)
), noted AS (
    UPDATE tenant_revisions t SET compacted = GREATEST(t.compacted, (SELECT revision FROM oldest))
    WHERE t.tenant = $1 AND (SELECT revision FROM oldest) IS NOT NULL
)
DELETE FROM changelog WHERE tenant = $1 AND revision <= (SELECT revision FROM oldest);
