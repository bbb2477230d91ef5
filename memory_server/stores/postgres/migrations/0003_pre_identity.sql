-- Who may call: tenants and API keys. Read before a tenant is known, so only under the worker's role.
-- oldest server: 1

CREATE TABLE tenants (
    tenant        text COLLATE "C" PRIMARY KEY CHECK (tenant <> ''),
    state         text COLLATE "C" NOT NULL DEFAULT 'active',
    display_name  text NOT NULL DEFAULT '',
    dedicated     boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE tenants IS 'The tenants of this server.';

CREATE TABLE api_keys (
    key_id       text COLLATE "C" PRIMARY KEY,
    tenants      text[] COLLATE "C" NOT NULL,
    scopes       text[] COLLATE "C" NOT NULL,
    label        text NOT NULL,
    secret_hash  bytea NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz
);
COMMENT ON TABLE api_keys IS 'API keys by id; of the secret only a hash is kept.';
CREATE INDEX api_keys_tenants ON api_keys USING gin (tenants);
