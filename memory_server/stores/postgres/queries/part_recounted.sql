AND (COALESCE(m.deleted, true)
         OR (c.namespace, c.term_keys::bigint[], c.length) IS DISTINCT FROM (m.namespace, m.term_keys, m.length))
