-- Delete tombstones that no index row and no late write can need any more.
-- $1 how many days they are kept, $2 limit
DELETE FROM memory_items m
WHERE m.ctid = ANY (ARRAY(
    SELECT i.ctid FROM memory_items i
    WHERE i.deleted AND i.updated_at < statement_timestamp() - make_interval(days => $1)
      AND NOT EXISTS (SELECT FROM index_jobs j WHERE j.tenant = i.tenant AND j.memory_id = i.memory_id)
    LIMIT $2::bigint
)) AND m.deleted;
