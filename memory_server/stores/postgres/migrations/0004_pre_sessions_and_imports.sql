-- Snapshots of working memory, and resumable import jobs with what they refused.
-- oldest server: 1

CREATE TABLE wm_sessions (
    tenant      text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    session_id  text COLLATE "C" NOT NULL,
    snapshot    bytea NOT NULL,
    brain_id    text COLLATE "C" NOT NULL,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant, session_id)
);
COMMENT ON TABLE wm_sessions IS 'The last snapshot of a session''s working memory, sent by the brain that holds it.';

CREATE TABLE import_jobs (
    tenant            text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    import_id         uuid NOT NULL,
    state             text COLLATE "C" NOT NULL,
    on_conflict       text COLLATE "C" NOT NULL,
    max_refused       bigint NOT NULL,
    dry_run           boolean NOT NULL,
    request_id        text COLLATE "C" NOT NULL DEFAULT '',
    request_hash      bytea NOT NULL DEFAULT '',
    committed_offset  bigint NOT NULL DEFAULT 0,
    stored            bigint NOT NULL DEFAULT 0,
    skipped           bigint NOT NULL DEFAULT 0,
    refused           bigint NOT NULL DEFAULT 0,
    -- Grows with every stream that takes the job over; a stream with an older number writes nothing more.
    fencing           bigint NOT NULL DEFAULT 0,
    leased_until      timestamptz,
    first_revision    bigint NOT NULL DEFAULT 0,
    last_revision     bigint NOT NULL DEFAULT 0,
    reason            text COLLATE "C" NOT NULL DEFAULT '',
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    PRIMARY KEY (tenant, import_id)
);
COMMENT ON TABLE import_jobs IS 'Import jobs: how far each got, and which stream holds it.';
CREATE UNIQUE INDEX import_jobs_request ON import_jobs (tenant, request_id) WHERE request_id <> '';

CREATE TABLE import_refusals (
    tenant       text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    import_id    uuid NOT NULL,
    record       bigint NOT NULL,
    reason       text COLLATE "C" NOT NULL,
    description  text NOT NULL,
    violations   text NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, import_id, record),
    FOREIGN KEY (tenant, import_id) REFERENCES import_jobs ON DELETE CASCADE
);
COMMENT ON TABLE import_refusals IS 'Records an import refused, by their place in the input.';
