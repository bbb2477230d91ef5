-- What imports need beyond their first form: labels, totals, unbounded refusals, how much the index holds of a job, and
-- what a dry run has seen.
-- oldest server: 1

ALTER TABLE import_jobs
    ALTER COLUMN max_refused DROP NOT NULL,
    ADD COLUMN label     text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN total     bigint NOT NULL DEFAULT 0,
    -- Of the stored records those that are memories; the others are links and never indexed.
    ADD COLUMN memories  bigint NOT NULL DEFAULT 0;

ALTER TABLE import_refusals ADD COLUMN metadata text NOT NULL DEFAULT '';

-- Which import a waiting row came with.
ALTER TABLE index_jobs ADD COLUMN import_id uuid;

CREATE TABLE import_seen (
    tenant        text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    import_id     uuid NOT NULL,
    memory_id     uuid NOT NULL,
    namespace     text COLLATE "C" NOT NULL,
    key           text COLLATE "C" NOT NULL,
    coordinate    float8[] NOT NULL,
    content_hash  bytea NOT NULL,
    version       bigint NOT NULL,
    expires_at    timestamptz,
    PRIMARY KEY (tenant, import_id, memory_id),
    FOREIGN KEY (tenant, import_id) REFERENCES import_jobs ON DELETE CASCADE
);
COMMENT ON TABLE import_seen IS 'The memories a dry run would have stored, so that what follows them is judged as if it had.';
CREATE INDEX import_seen_key ON import_seen (tenant, import_id, namespace, key) WHERE key <> '';
