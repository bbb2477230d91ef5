-- Read what a dry run has seen among these ids and keys, as lock_rows.sql reads rows.
-- $1 tenant, $2 id of the job, $3 ids, $4 $5 namespaces and keys
SELECT s.memory_id, s.namespace, s.key, s.coordinate, NULL::timestamptz, NULL::timestamptz, s.expires_at, s.version,
       false, s.content_hash, NULL::timestamptz, ''
FROM import_seen s
WHERE s.tenant = $1 AND s.import_id = $2::uuid AND s.memory_id = ANY (ARRAY(
    SELECT id FROM unnest($3::uuid[]) AS id
    UNION ALL
    SELECT k.memory_id
    FROM unnest($4::text[], $5::text[]) AS named (namespace, key)
    CROSS JOIN LATERAL (
        SELECT i.memory_id FROM import_seen i
        WHERE i.tenant = $1 AND i.import_id = $2::uuid AND i.namespace = named.namespace AND i.key = named.key
          AND i.key <> ''
    ) AS k
));
