-- Read what the logged-in role could do, and which tables with a tenant lack forced row-level security.
SELECT r.rolname AS name,
       r.rolsuper AS superuser,
       r.rolbypassrls AS bypasses,
       EXISTS (SELECT FROM pg_class c WHERE c.relowner = r.oid AND c.relname = 'memory_items') AS owns,
       COALESCE(pg_has_role(r.oid, w.oid, 'USAGE'), false) AS inherits_worker,
       COALESCE(pg_has_role(r.oid, w.oid, 'MEMBER'), false) AS may_work,
       ARRAY(SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND a.attname = 'tenant' AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
             ORDER BY 1) AS unprotected
FROM pg_roles r LEFT JOIN pg_roles w ON w.rolname = $1
WHERE r.rolname = current_user;
