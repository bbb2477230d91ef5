-- What a tenant's administrators set: labels, how its recalls are scored, and why it is suspended.
-- oldest server: 1

ALTER TABLE tenants
    ADD COLUMN labels          text NOT NULL DEFAULT '{}',
    ADD COLUMN scorer          text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN recall_weights  text NOT NULL DEFAULT '{}',
    ADD COLUMN suspend_cause   text NOT NULL DEFAULT '',
    ADD COLUMN updated_at      timestamptz,
    ADD COLUMN version         bigint NOT NULL DEFAULT 1,
    -- The request that made it: repeated, it is answered as the first time.
    ADD COLUMN request_id      text COLLATE "C" NOT NULL DEFAULT '';
