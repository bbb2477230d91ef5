-- Read how long the next memories of an export are, about, without reading their texts.
-- $1 tenant, then the values of the filter, of the last page's end, and the limit
SELECT m.memory_id,
       400 + octet_length(m.text) + octet_length(m.payload) + COALESCE(octet_length(m.embedding), 1600) AS bytes
FROM memory_items m
WHERE m.tenant = $1 AND {condition}
ORDER BY m.memory_id
LIMIT {limit};
