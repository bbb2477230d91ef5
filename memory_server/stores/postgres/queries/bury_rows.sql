-- Delete history, vectors and links of memories whose life ends here; answers the links, for the changelog.
-- $1 tenant, $2 ids
WITH gone_versions AS (
    DELETE FROM memory_versions WHERE tenant = $1 AND memory_id = ANY ($2::uuid[])
), gone_vectors AS (
    DELETE FROM memory_vectors WHERE tenant = $1 AND memory_id = ANY ($2::uuid[])
), gone_links AS (
    DELETE FROM links WHERE tenant = $1 AND (source_id = ANY ($2::uuid[]) OR target_id = ANY ($2::uuid[]))
    RETURNING source_id, target_id, relation, version
)
SELECT source_id, target_id, relation, version FROM gone_links ORDER BY source_id, relation, target_id;
