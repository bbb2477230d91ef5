-- Read memories that a collection holds in their current version and another one does not yet, with vectors of a profile
-- if there are any; those that do not live come without content, so that the reader gets past them.
-- $1 $2 tenant and id to read on from, $3 the last tenant, $4 the collection's epoch, $5 the other's, $6 profile of the
-- vectors, $7 profile and $8 tenant of the collection, $9 limit
SELECT {columns}, t.tenant, t.memory_id AS id, {live} AS lives, v.dense, v.sentences, v.tokens, v.token_ids
FROM (
    SELECT j.tenant, j.memory_id, j.version FROM index_jobs j
    WHERE (j.tenant, j.memory_id) > ($1, $2::uuid) AND j.tenant <= $3
      AND j.due_at IS NULL AND j.indexed_epoch >= $4::bigint AND j.indexed_epoch < $5::bigint
    ORDER BY j.tenant, j.memory_id LIMIT $9::bigint
) AS t
LEFT JOIN LATERAL (
    SELECT * FROM memory_items i
    WHERE i.tenant = t.tenant AND i.memory_id = t.memory_id AND i.version = t.version AND {belongs} OFFSET 0
) AS m ON true
LEFT JOIN LATERAL (
    SELECT * FROM memory_vectors e
    WHERE e.tenant = t.tenant AND e.memory_id = t.memory_id AND e.version = t.version AND e.profile = $6 OFFSET 0
) AS v ON true
ORDER BY t.tenant, t.memory_id;
