-- Read the memories of buckets, and what is known of their being indexed; jobs without a memory too.
-- $1 tenants, $2 ids above which, $3 ids up to which, $4 the collection's epoch, $5 its name
SELECT m.tenant, m.memory_id, CASE WHEN NOT m.deleted THEN m.version END AS version,
       COALESCE({settled}, false) AS settled,
       -- What has expired leaves the index by its own ways and in its own time.
       (NOT m.deleted AND NOT ({live})) OR COALESCE(j.due_at IS NOT NULL OR (j.indexed_epoch < $4::bigint AND EXISTS (
           SELECT FROM index_collections c WHERE c.name = $5 AND c.requeue_from IS NOT NULL
       )), false) AS pending,
       j.moved_at
FROM unnest($1::text[], $2::text[], $3::uuid[]) AS b (tenant, above, upto)
CROSS JOIN LATERAL (SELECT * FROM memory_items m WHERE {in_bucket} OFFSET 0) AS m
LEFT JOIN LATERAL (
    SELECT * FROM index_jobs i WHERE i.tenant = m.tenant AND i.memory_id = m.memory_id OFFSET 0
) AS j ON true
UNION ALL
SELECT m.tenant, m.memory_id, NULL, false, m.due_at IS NOT NULL, m.moved_at
FROM unnest($1::text[], $2::text[], $3::uuid[]) AS b (tenant, above, upto)
CROSS JOIN LATERAL (SELECT * FROM index_jobs m WHERE {in_bucket} OFFSET 0) AS m
LEFT JOIN LATERAL (
    SELECT i.memory_id FROM memory_items i WHERE i.tenant = m.tenant AND i.memory_id = m.memory_id OFFSET 0
) AS i ON true
WHERE i.memory_id IS NULL;
