-- The file of one brain. Bodies are encrypted (AES-256-GCM); key_id names the key in the key file.

-- name: schema
CREATE TABLE IF NOT EXISTS facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS keys_used (
    key_id TEXT PRIMARY KEY
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS tenant_epochs (
    tenant TEXT PRIMARY KEY,
    epoch  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS outbox_entries (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     TEXT    NOT NULL CHECK (tenant <> ''),
    entry_id   TEXT    NOT NULL UNIQUE,
    request_id TEXT    NOT NULL,
    operation  TEXT    NOT NULL,
    touched    TEXT    NOT NULL,
    origin_us  INTEGER NOT NULL,
    brain_id   TEXT    NOT NULL,
    epoch      INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    digest     BLOB    NOT NULL,
    key_id     TEXT    NOT NULL,
    body       BLOB    NOT NULL,
    state      INTEGER NOT NULL DEFAULT 0,
    attempts   INTEGER NOT NULL DEFAULT 0,
    rejection  TEXT    NOT NULL DEFAULT '',
    traceparent TEXT   NOT NULL DEFAULT '',
    UNIQUE (tenant, request_id)
);

-- Requests that were delivered lately.
CREATE TABLE IF NOT EXISTS settled_requests (
    tenant     TEXT    NOT NULL CHECK (tenant <> ''),
    request_id TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    settled_us INTEGER NOT NULL,
    PRIMARY KEY (tenant, request_id)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS settled_requests_age ON settled_requests (settled_us);

CREATE TABLE IF NOT EXISTS wm_sessions (
    tenant        TEXT    NOT NULL CHECK (tenant <> ''),
    session       TEXT    NOT NULL,
    last_sequence INTEGER NOT NULL,
    touched_s     REAL    NOT NULL,
    persona       TEXT    NOT NULL DEFAULT '',
    epoch         INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, session)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS wm_items (
    tenant       TEXT    NOT NULL CHECK (tenant <> ''),
    session      TEXT    NOT NULL,
    slot         INTEGER NOT NULL,
    salience     REAL    NOT NULL,
    salience_s   REAL    NOT NULL,
    uses         INTEGER NOT NULL DEFAULT 0,
    long_term_id TEXT    NOT NULL DEFAULT '',
    key_id       TEXT    NOT NULL,
    body         BLOB    NOT NULL,
    PRIMARY KEY (tenant, session, slot)
);

CREATE TABLE IF NOT EXISTS wm_rules (
    tenant TEXT PRIMARY KEY,
    rules  TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS wm_items_long_term ON wm_items (tenant, long_term_id) WHERE long_term_id <> '';

-- name: trace_entries
-- Layout 2 knew no traces.
ALTER TABLE outbox_entries ADD COLUMN traceparent TEXT NOT NULL DEFAULT '';

-- name: read_fact
SELECT value FROM facts WHERE name = ?;

-- name: write_fact
INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: keys_used
SELECT key_id FROM keys_used;

-- name: use_key
INSERT OR IGNORE INTO keys_used (key_id) VALUES (?);

-- name: retire_keys
-- Forget every key but the current one, once no row is encrypted with another.
DELETE FROM keys_used WHERE key_id <> ?;

-- name: epochs
SELECT tenant, epoch FROM tenant_epochs;

-- name: write_epoch
INSERT INTO tenant_epochs (tenant, epoch) VALUES (?, ?)
ON CONFLICT (tenant) DO UPDATE SET epoch = max(epoch, excluded.epoch);

-- name: last_sequence
SELECT seq FROM sqlite_sequence WHERE name = 'outbox_entries';

-- name: append
INSERT INTO outbox_entries (sequence, tenant, entry_id, request_id, operation, touched, origin_us, brain_id, epoch,
                            size, digest, key_id, body, traceparent)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: entries
SELECT sequence, tenant, entry_id, request_id, operation, touched, origin_us, brain_id, epoch, size, digest, state,
       attempts, rejection, traceparent
FROM outbox_entries ORDER BY sequence;

-- name: body
SELECT key_id, body FROM outbox_entries WHERE sequence = ?;

-- name: settle
DELETE FROM outbox_entries WHERE sequence = ?;

-- name: keep_settled
INSERT OR REPLACE INTO settled_requests (tenant, request_id, digest, settled_us) VALUES (?, ?, ?, ?);

-- name: settled
SELECT tenant, request_id, digest, settled_us FROM settled_requests ORDER BY settled_us;

-- name: forget_settled
DELETE FROM settled_requests WHERE settled_us < ?;

-- name: erase_settled
DELETE FROM settled_requests WHERE tenant = ?;

-- name: mark
UPDATE outbox_entries SET state = ?, attempts = ?, rejection = ? WHERE sequence = ?;

-- name: fence
-- Erased before this epoch: nothing of it may be sent any more.
DELETE FROM outbox_entries WHERE tenant = ? AND epoch < ?;

-- name: entries_of_other_keys
SELECT sequence, tenant, entry_id, key_id, body FROM outbox_entries WHERE key_id <> ? LIMIT ?;

-- name: rekey_entry
UPDATE outbox_entries SET key_id = ?, body = ? WHERE sequence = ?;

-- name: save_session
INSERT INTO wm_sessions (tenant, session, last_sequence, touched_s, persona, epoch) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, session) DO UPDATE
SET last_sequence = max(last_sequence, excluded.last_sequence), touched_s = max(touched_s, excluded.touched_s),
    persona = excluded.persona, epoch = max(epoch, excluded.epoch);

-- name: save_item
INSERT INTO wm_items (tenant, session, slot, salience, salience_s, uses, long_term_id, key_id, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, session, slot) DO UPDATE
SET salience = excluded.salience, salience_s = excluded.salience_s, uses = excluded.uses, long_term_id = excluded.long_term_id,
    key_id = excluded.key_id, body = excluded.body;

-- name: save_salience
UPDATE wm_items SET salience = ?, salience_s = ?, uses = ? WHERE tenant = ? AND session = ? AND slot = ?;

-- name: drop_item
DELETE FROM wm_items WHERE tenant = ? AND session = ? AND slot = ?;

-- name: drop_session_items
DELETE FROM wm_items WHERE tenant = ? AND session = ?;

-- name: drop_session
DELETE FROM wm_sessions WHERE tenant = ? AND session = ?;

-- name: drop_tenant_items
DELETE FROM wm_items WHERE tenant = ?;

-- name: drop_tenant_sessions
DELETE FROM wm_sessions WHERE tenant = ?;

-- name: drop_tenant_rules
DELETE FROM wm_rules WHERE tenant = ?;

-- name: drop_long_term
DELETE FROM wm_items WHERE tenant = ? AND long_term_id = ?;

-- name: sessions
-- Last used first: what fits in memory is taken from the top.
SELECT tenant, session FROM wm_sessions ORDER BY touched_s DESC, tenant, session;

-- name: session
SELECT last_sequence, touched_s, persona, epoch FROM wm_sessions WHERE tenant = ? AND session = ?;

-- name: items
SELECT slot, salience, salience_s, uses, long_term_id, key_id, body FROM wm_items
WHERE tenant = ? AND session = ? ORDER BY slot;

-- name: save_rules
INSERT INTO wm_rules (tenant, rules) VALUES (?, ?) ON CONFLICT (tenant) DO UPDATE SET rules = excluded.rules;

-- name: rules
SELECT tenant, rules FROM wm_rules ORDER BY tenant;

-- name: items_of_other_keys
SELECT tenant, session, slot, key_id, body FROM wm_items WHERE key_id <> ? LIMIT ?;

-- name: rekey_item
UPDATE wm_items SET key_id = ?, body = ? WHERE tenant = ? AND session = ? AND slot = ?;
