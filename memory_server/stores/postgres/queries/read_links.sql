-- Read links by their keys, as far as they are valid and both ends live.
-- $1 tenant, $2 sources, $3 relations, $4 targets
SELECT l.*
FROM unnest($2::uuid[], $3::text[], $4::uuid[]) AS k (source_id, relation, target_id)
CROSS JOIN LATERAL (
    SELECT l.source_id, l.target_id, l.relation, {strength} AS strength, l.metadata, l.valid_from, l.valid_until,
           l.version, l.created_at, l.updated_at
    FROM links l
    WHERE l.tenant = $1 AND l.source_id = k.source_id AND l.relation = k.relation AND l.target_id = k.target_id
      AND {valid}
      AND EXISTS (SELECT FROM memory_items m WHERE m.tenant = $1 AND m.memory_id = l.source_id AND {live})
      AND EXISTS (SELECT FROM memory_items m WHERE m.tenant = $1 AND m.memory_id = l.target_id AND {live})
    -- Keeps the planner from walking the tenant's links and looking for each among the keys.
    OFFSET 0
) AS l;
