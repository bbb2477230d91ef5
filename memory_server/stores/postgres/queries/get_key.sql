-- Read an API key.
SELECT key_id, tenants, scopes, label, secret_hash, created_at, expires_at, revoked_at FROM api_keys WHERE key_id = $1;
