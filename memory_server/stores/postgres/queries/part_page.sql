(SELECT l.source_id, l.target_id, l.relation, l.strength, l.metadata, l.valid_from, l.valid_until, l.version,
        l.created_at, l.updated_at
 FROM links l
 WHERE l.tenant = $1 AND l.{near} = $2 AND ($3::text[] IS NULL OR l.relation = ANY ($3::text[])) AND l.strength >= $4
   AND {behind} AND {valid} AND EXISTS (
       SELECT FROM memory_items m WHERE m.tenant = $1 AND m.memory_id = l.{far} AND {live}
   )
 ORDER BY l.strength DESC, l.{far}, l.relation
 LIMIT {most})
