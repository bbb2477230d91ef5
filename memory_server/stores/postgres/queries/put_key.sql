-- Add an API key, or replace the one of the same id.
INSERT INTO api_keys (key_id, tenants, scopes, label, secret_hash, created_at, expires_at, revoked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (key_id) DO UPDATE SET
    tenants = excluded.tenants, scopes = excluded.scopes, label = excluded.label, secret_hash = excluded.secret_hash,
    created_at = excluded.created_at, expires_at = excluded.expires_at, revoked_at = excluded.revoked_at;
