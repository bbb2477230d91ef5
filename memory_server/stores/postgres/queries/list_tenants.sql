-- Read tenants in name order, after a name.
SELECT tenant, state, display_name, dedicated, created_at FROM tenants WHERE tenant > $1 ORDER BY tenant LIMIT $2;
