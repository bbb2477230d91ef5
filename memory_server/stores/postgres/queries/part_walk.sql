(SELECT l.{far} AS reached, {strength} AS strength, l.relation, {outgoing} AS outgoing{columns}
 FROM links l
 WHERE l.tenant = $1 AND l.{near} = f.id AND ($3::text[] IS NULL OR l.relation = ANY ($3::text[])) AND l.strength >= $4
   AND {valid} AND {lives}
 ORDER BY l.strength DESC, l.{far}
 LIMIT $5)
