-- Read links by their keys.
-- $1 tenant, $2 sources, $3 relations, $4 targets
SELECT l.source_id, l.target_id, l.relation, {strength} AS strength, l.metadata, l.valid_from, l.valid_until, l.version,
       l.created_at, l.updated_at
FROM unnest($2::uuid[], $3::text[], $4::uuid[]) AS k (source_id, relation, target_id)
JOIN links l ON l.tenant = $1 AND l.source_id = k.source_id AND l.relation = k.relation AND l.target_id = k.target_id;
