-- Search by BM25 the living rows that the index does not hold, or took in within the last ten seconds.
-- $1 tenant, then the values of terms, filter and limit
WITH {weights}, {epoch}
SELECT m.memory_id, {score} AS score
FROM soma_rows_with_terms({keys}) AS m
WHERE m.tenant = $1 AND {live} AND {filter}
  AND (
      SELECT j.indexed_epoch < (SELECT epoch FROM searched) OR j.moved_at > statement_timestamp() - interval '10 seconds'
      FROM index_jobs j
      WHERE j.tenant = $1 AND j.memory_id = m.memory_id
  )
ORDER BY score DESC, m.memory_id
LIMIT {limit};
