-- Revoke an API key.
UPDATE api_keys SET revoked_at = COALESCE(revoked_at, clock_timestamp()) WHERE key_id = $1
RETURNING key_id, tenants, scopes, label, secret_hash, created_at, expires_at, revoked_at;
