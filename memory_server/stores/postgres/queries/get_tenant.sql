-- Read a tenant.
SELECT tenant, state, display_name, dedicated, created_at FROM tenants WHERE tenant = $1;
