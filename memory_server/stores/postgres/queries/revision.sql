-- Read a tenant's last revision.
SELECT revision FROM tenant_revisions WHERE tenant = $1;
