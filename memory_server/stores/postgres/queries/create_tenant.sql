-- Create a tenant; no row when the name is taken.
INSERT INTO tenants (tenant, display_name, dedicated) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING
RETURNING tenant, state, display_name, dedicated, created_at;
