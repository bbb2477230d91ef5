-- Create a tenant, or find the one that the same request made; no row when the name is taken.
-- $1 name, $2 display name, $3 dedicated, $4 labels, $5 scorer, $6 recall weights, $7 request id
WITH made AS (
    INSERT INTO tenants (tenant, display_name, dedicated, labels, scorer, recall_weights, request_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT DO NOTHING
    RETURNING *
)
SELECT * FROM made
UNION ALL
SELECT * FROM tenants WHERE tenant = $1 AND request_id = $7 AND $7 <> '';
