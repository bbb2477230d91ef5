-- Read tenants in name order, after a name.
SELECT * FROM tenants WHERE tenant > $1 ORDER BY tenant LIMIT $2;
