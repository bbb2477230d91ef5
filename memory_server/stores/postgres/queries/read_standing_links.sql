-- Read links as they are stored: those of the keys, the co_recalled ones of some memories, and those that the payloads
-- of others made.
-- $1 tenant, $2 sources, $3 relations, $4 targets, $5 ids with co_recalled links, $6 ids with payloads
SELECT l.*
FROM unnest($2::uuid[], $3::text[], $4::uuid[]) AS k (source_id, relation, target_id)
CROSS JOIN LATERAL (
    SELECT l.source_id, l.target_id, l.relation, l.strength, l.metadata, l.valid_from, l.valid_until, l.version,
           l.created_at, l.updated_at, l.made_by, l.origin_at, l.origin_brain
    FROM links l
    WHERE l.tenant = $1 AND l.source_id = k.source_id AND l.relation = k.relation AND l.target_id = k.target_id
    -- Keeps the planner from walking the tenant's links and looking for each among the keys.
    OFFSET 0
) AS l
UNION ALL
SELECT l.source_id, l.target_id, l.relation, l.strength, l.metadata, l.valid_from, l.valid_until, l.version,
       l.created_at, l.updated_at, l.made_by, l.origin_at, l.origin_brain
FROM links l
WHERE l.tenant = $1 AND l.relation = 'co_recalled' AND l.source_id = ANY ($5::uuid[])
UNION ALL
SELECT l.source_id, l.target_id, l.relation, l.strength, l.metadata, l.valid_from, l.valid_until, l.version,
       l.created_at, l.updated_at, l.made_by, l.origin_at, l.origin_brain
FROM links l
WHERE l.tenant = $1 AND l.relation = 'co_recalled' AND l.target_id = ANY ($5::uuid[])
UNION ALL
SELECT l.source_id, l.target_id, l.relation, l.strength, l.metadata, l.valid_from, l.valid_until, l.version,
       l.created_at, l.updated_at, l.made_by, l.origin_at, l.origin_brain
FROM links l
WHERE l.tenant = $1 AND l.relation = 'references' AND l.source_id = ANY ($6::uuid[]) AND l.made_by = 'payload';
