-- Search all living rows of a tenant by BM25.
-- $1 tenant, then the values of terms, filter and limit
WITH {weights}
SELECT m.memory_id, {score} AS score
FROM soma_rows_with_terms({keys}) AS m
WHERE m.tenant = $1 AND {live} AND {filter}
ORDER BY score DESC, m.memory_id
LIMIT {limit};
