-- Fold term changes into the counts, in the order of their keys; answers how many, and which counts went down.
-- $1 how many changes
WITH taken AS (
    DELETE FROM term_changes t
    WHERE t.ctid = ANY (ARRAY(SELECT c.ctid FROM term_changes c LIMIT $1::bigint FOR UPDATE SKIP LOCKED))
    RETURNING t.tenant, t.namespace, t.sign, t.term_keys, t.length
), sums AS MATERIALIZED (
    SELECT t.tenant, k.key, t.namespace, sum(t.sign) AS change
    FROM taken t CROSS JOIN unnest(t.term_keys) AS k (key)
    GROUP BY t.tenant, k.key, t.namespace
    HAVING sum(t.sign) <> 0
), corpus AS (
    INSERT INTO corpus_stats AS c (tenant, namespace, memories, length)
    SELECT t.tenant, t.namespace, sum(t.sign), sum(t.sign * t.length) FROM taken t
    GROUP BY t.tenant, t.namespace ORDER BY t.tenant, t.namespace
    ON CONFLICT (tenant, namespace) DO UPDATE SET
        memories = c.memories + excluded.memories, length = c.length + excluded.length
), terms AS (
    INSERT INTO term_stats AS s (tenant, term_key, namespace, frequency)
    SELECT tenant, key, namespace, change FROM sums ORDER BY tenant, key, namespace
    ON CONFLICT (tenant, term_key, namespace) DO UPDATE SET frequency = s.frequency + excluded.frequency
)
SELECT (SELECT count(*) FROM taken) AS folded,
       ARRAY(SELECT tenant FROM sums WHERE change < 0 ORDER BY tenant, key, namespace) AS tenants,
       ARRAY(SELECT key FROM sums WHERE change < 0 ORDER BY tenant, key, namespace) AS keys,
       ARRAY(SELECT namespace FROM sums WHERE change < 0 ORDER BY tenant, key, namespace) AS namespaces;
