-- Compute the digest of the memories that the index should hold in each bucket.
-- $1 tenants, $2 ids above which, $3 ids up to which, $4 the collection's epoch
SELECT COALESCE(md5(string_agg(s.memory_id::text || ':' || s.version, ',' ORDER BY s.memory_id)), '') AS digest,
       count(s.memory_id) AS memories
FROM unnest($1::text[], $2::text[], $3::uuid[]) WITH ORDINALITY AS b (tenant, above, upto, place)
LEFT JOIN LATERAL (
    SELECT m.memory_id, m.version
    FROM memory_items m
    CROSS JOIN LATERAL (
        SELECT * FROM index_jobs i WHERE i.tenant = m.tenant AND i.memory_id = m.memory_id OFFSET 0
    ) AS j
    WHERE {in_bucket} AND {live} AND {settled}
) AS s ON true
GROUP BY b.place ORDER BY b.place;
