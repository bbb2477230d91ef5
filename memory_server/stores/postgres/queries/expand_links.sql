-- Walk one link on from each memory: its strongest, memories in the order given. Its walks are part_walk.sql, one a
-- direction; its starts keep memories that do not live from starting. No join may change the order.
-- $1 tenant, $2 ids, $3 relations or NULL, $4 least strength, $5 read a memory, $6 kept a memory, $7 kept in all
SELECT f.place::int, s.reached, s.strength, s.relation, s.outgoing{found}
FROM (SELECT u.id, u.place FROM unnest($2::uuid[]) WITH ORDINALITY AS u (id, place) {starts}) AS f
CROSS JOIN LATERAL (
    SELECT w.reached, w.strength, w.relation, w.outgoing{columns}
    FROM ({walks}) AS w
    WHERE w.strength >= $4
    ORDER BY w.strength DESC, w.reached, w.relation, w.outgoing DESC
    LIMIT $6
) AS s
LIMIT $7;
