-- Delete counts that fell to nothing, so that no trace of a forgotten word stays.
-- $1 … $3 tenants, keys, namespaces
DELETE FROM term_stats s
USING unnest($1::text[], $2::bigint[], $3::text[]) AS d (tenant, key, namespace)
WHERE s.tenant = d.tenant AND s.term_key = d.key AND s.namespace = d.namespace AND s.frequency <= 0;
