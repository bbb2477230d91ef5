-- Row-level security and grants, applied after every migration: new tables get them without being asked.
-- {application} and {worker} are role names, quoted.

-- Each table with a tenant column shows a transaction the rows of its own tenant; without one, none.
-- The setting reads '' and not NULL once it was set in a session, hence NULLIF.
DO $$
DECLARE
    one regclass;
BEGIN
    FOR one IN
        SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'tenant'
          AND NOT c.relispartition AND NOT a.attisdropped AND c.relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', one);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', one);
        EXECUTE format('DROP POLICY IF EXISTS own_tenant ON %s', one);
        EXECUTE format('CREATE POLICY own_tenant ON %s'
                       ' USING (tenant = NULLIF(current_setting(''app.tenant'', true), ''''))'
                       ' WITH CHECK (tenant = NULLIF(current_setting(''app.tenant'', true), ''''))', one);
    END LOOP;
END $$;

ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;

-- For soma_rows_with_terms, which runs as the owner.
DROP POLICY IF EXISTS rows_with_terms ON memory_items;
CREATE POLICY rows_with_terms ON memory_items FOR SELECT TO CURRENT_USER USING (true);

-- A shared collection belongs to nobody and is named to everybody.
DROP POLICY IF EXISTS shared_collection ON index_collections;
CREATE POLICY shared_collection ON index_collections FOR SELECT USING (tenant = '');

-- The worker's role serves the pipeline, the registry and housekeeping, which know no single tenant.
DO $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY ARRAY['memory_items', 'memory_versions', 'memory_vectors', 'links', 'tenant_revisions',
        'changelog', 'idempotency', 'index_jobs', 'index_collections', 'embedding_profiles', 'term_changes',
        'term_stats', 'corpus_stats', 'tenants', 'api_keys', 'import_jobs', 'import_refusals',
        'import_seen', 'wm_sessions', 'importance_counts'] LOOP
        EXECUTE format('DROP POLICY IF EXISTS all_tenants ON %I', one);
        EXECUTE format('CREATE POLICY all_tenants ON %I TO {worker} USING (true) WITH CHECK (true)', one);
    END LOOP;
END $$;

GRANT SELECT ON schema_migrations TO {application}, {worker};
GRANT SELECT, INSERT, UPDATE, DELETE ON memory_items, memory_versions, memory_vectors, links, tenant_revisions,
    changelog, idempotency, index_jobs, embedding_profiles, term_changes, wm_sessions, import_jobs, import_refusals,
    import_seen, importance_counts
    TO {application};
GRANT SELECT ON index_collections, term_stats, corpus_stats TO {application};
GRANT SELECT, UPDATE, DELETE ON memory_items, tenant_revisions TO {worker};
GRANT SELECT, INSERT, UPDATE, DELETE ON memory_versions, memory_vectors, links, changelog, idempotency, index_jobs,
    index_collections, embedding_profiles, term_changes, term_stats, corpus_stats, tenants, api_keys, wm_sessions,
    import_jobs, import_refusals, import_seen, importance_counts TO {worker};
GRANT SELECT, DELETE ON idempotency_rest TO {worker};
GRANT USAGE ON SEQUENCE index_epochs TO {worker};
REVOKE ALL ON FUNCTION soma_roll_idempotency(int), soma_rows_with_terms(bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION soma_rows_with_terms(bigint[]) TO {application};
GRANT EXECUTE ON FUNCTION soma_roll_idempotency(int) TO {worker};
