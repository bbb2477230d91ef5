-- Read a tenant.
SELECT * FROM tenants WHERE tenant = $1;
