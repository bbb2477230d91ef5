-- Count a namespace's importances by bucket, as QuantileSketch does, and keep the counts.
-- $1 tenant, $2 namespace, $3 smallest size, $4 largest, $5 logarithm of a bucket's growth
INSERT INTO importance_counts (tenant, namespace, counts, counted_at)
SELECT $1, $2, COALESCE(json_object_agg(bucket, items), '{}')::text, clock_timestamp()
FROM (
    SELECT (CASE
               WHEN abs(importance) < $3::float8 THEN 0
               ELSE sign(importance) * (ceil(ln(least(abs(importance), $4::float8) / $3::float8) / $5::float8) + 1)
           END)::int AS bucket, count(*) AS items
    FROM memory_items
    WHERE tenant = $1 AND namespace = $2 AND importance IS NOT NULL AND NOT deleted
    GROUP BY 1
) AS b
ON CONFLICT (tenant, namespace) DO UPDATE SET counts = excluded.counts, counted_at = excluded.counted_at
RETURNING counts;
