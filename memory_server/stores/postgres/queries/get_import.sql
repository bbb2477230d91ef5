-- Read import jobs by id or by request id, with how many of their memories wait for the index.
-- $1 tenant, $2 id or NULL, $3 request id
SELECT {columns}, j.request_hash,
       (SELECT count(*) FROM index_jobs w
        WHERE w.tenant = $1 AND w.due_at IS NOT NULL AND w.import_id = j.import_id) AS waiting
FROM import_jobs j
WHERE j.tenant = $1 AND (j.import_id = $2::uuid OR ($3 <> '' AND j.request_id = $3));
