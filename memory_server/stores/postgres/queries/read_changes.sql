-- Read the changelog behind a place, with the links it tells of as they are now and the namespaces of their far ends.
-- $1 tenant, $2 $3 revision and ordinal, $4 how many lines
SELECT c.revision, c.ordinal, c.op, c.memory_id, c.namespace, c.version, c.target_id, c.relation, c.at,
       t.namespace AS target_namespace, l.version AS link_version, l.strength, l.metadata, l.valid_from, l.valid_until
FROM changelog c
LEFT JOIN LATERAL (
    SELECT i.namespace FROM memory_items i WHERE i.tenant = $1 AND i.memory_id = c.target_id OFFSET 0
) AS t ON true
LEFT JOIN LATERAL (
    SELECT * FROM links i
    WHERE c.op = 'link' AND i.tenant = $1 AND i.source_id = c.memory_id AND i.relation = c.relation
      AND i.target_id = c.target_id
    OFFSET 0
) AS l ON true
WHERE c.tenant = $1 AND (c.revision, c.ordinal) > ($2::bigint, $3::int)
ORDER BY c.revision, c.ordinal
LIMIT $4::bigint;
