-- Read the API keys of a tenant in the order of their ids, after an id.
SELECT key_id, tenants, scopes, label, secret_hash, created_at, expires_at, revoked_at
FROM api_keys
WHERE tenants @> ARRAY[$1::text] AND key_id > $2
ORDER BY key_id
LIMIT $3;
