-- Read the links from one of these memories to another.
-- The set is asked by a hashed subplan; written as a join it would be looked through once a link.
-- $1 tenant, $2 ids, $3 relations or NULL, $4 least strength, $5 kept in all
SELECT f.place::int, l.target_id, l.strength, l.relation
FROM unnest($2::uuid[]) WITH ORDINALITY AS f (id, place)
CROSS JOIN LATERAL (
    SELECT l.target_id, {strength} AS strength, l.relation
    FROM links l
    WHERE l.tenant = $1 AND l.source_id = f.id AND ($3::text[] IS NULL OR l.relation = ANY ($3::text[]))
      AND l.strength >= $4 AND {valid} AND (l.target_id IN (SELECT t.id FROM unnest($2::uuid[]) AS t (id))) IS TRUE
    OFFSET 0
) AS l
WHERE l.strength >= $4
LIMIT $5;
