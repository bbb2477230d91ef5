-- Read the next links of an export: those whose ends both live and match.
-- $1 tenant, then the values of the filter, of the last page's end, and the limit
SELECT l.source_id, l.target_id, l.relation, l.strength, l.metadata, l.valid_from, l.valid_until, l.version,
       l.created_at, l.updated_at
FROM links l
WHERE l.tenant = $1 AND {behind}
  AND EXISTS (SELECT FROM memory_items m WHERE m.tenant = $1 AND m.memory_id = l.source_id AND {live} AND {filter})
  AND EXISTS (SELECT FROM memory_items m WHERE m.tenant = $1 AND m.memory_id = l.target_id AND {live} AND {filter})
ORDER BY l.source_id, l.relation, l.target_id
LIMIT {limit};
