-- Read links by their keys. Whoever changes a link holds both its ends, so they need no lock.
-- $1 tenant, $2 sources, $3 relations, $4 targets
SELECT l.source_id, l.target_id, l.relation, l.strength, l.metadata, l.valid_from, l.valid_until, l.version,
       l.created_at, l.updated_at
FROM unnest($2::uuid[], $3::text[], $4::uuid[]) AS k (source_id, relation, target_id)
CROSS JOIN LATERAL (
    SELECT * FROM links i
    WHERE i.tenant = $1 AND i.source_id = k.source_id AND i.relation = k.relation AND i.target_id = k.target_id
    OFFSET 0
) AS l;
