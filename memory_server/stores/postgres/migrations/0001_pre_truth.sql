-- The truth: memories, their versions, links, vectors, the changelog and the idempotency records.
-- oldest server: 1

-- Labels compare by code point, as the filter's definition says, whatever the database's collation is.
CREATE TABLE memory_items (
    tenant           text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    memory_id        uuid NOT NULL,
    namespace        text COLLATE "C" NOT NULL,
    key              text COLLATE "C" NOT NULL DEFAULT '',
    coordinate       float8[] NOT NULL,
    kind             text COLLATE "C" NOT NULL,
    schema_type      text COLLATE "C" NOT NULL DEFAULT '',
    schema_version   text COLLATE "C" NOT NULL DEFAULT '',
    persona_id       text COLLATE "C" NOT NULL DEFAULT '',
    text             text COLLATE "C" NOT NULL DEFAULT '',
    payload          text COLLATE "C" NOT NULL DEFAULT '',
    payload_jsonb    jsonb GENERATED ALWAYS AS (NULLIF(payload, '')::jsonb) STORED,
    tags             text[] COLLATE "C" NOT NULL DEFAULT '{}',
    actor            text COLLATE "C" NOT NULL DEFAULT '',
    session_id       text COLLATE "C" NOT NULL DEFAULT '',
    sequence         bigint,
    author           text COLLATE "C" NOT NULL DEFAULT '',
    source           text COLLATE "C" NOT NULL DEFAULT '',
    confidence       float8,
    importance       float8,
    relevance        float8,
    occurred_at      timestamptz,
    expires_at       timestamptz,
    embedding        bytea,
    embedding_model  text COLLATE "C" NOT NULL DEFAULT '',
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    version          bigint NOT NULL,
    deleted          boolean NOT NULL DEFAULT false,
    content_hash     bytea NOT NULL,
    origin_at        timestamptz,
    origin_brain     text COLLATE "C" NOT NULL DEFAULT '',
    -- 64-bit hashes of (tenant, term): one GIN index serves all tenants and no posting list is shared by two.
    term_keys        bigint[] NOT NULL DEFAULT '{}',
    term_counts      int[] NOT NULL DEFAULT '{}',
    length           int NOT NULL DEFAULT 0,
    -- 64-bit hashes of text and coordinate. Under row-level security only leakproof operators reach an index, which
    -- those of arrays are not and that of bigint is.
    text_key         bigint NOT NULL DEFAULT 0,
    place_key        bigint NOT NULL,
    PRIMARY KEY (tenant, memory_id)
) WITH (fillfactor = 90);
COMMENT ON TABLE memory_items IS 'One row a memory in its current version; a forgotten one stays as an empty tombstone.';
ALTER TABLE memory_items ALTER COLUMN embedding SET STORAGE EXTERNAL;

CREATE UNIQUE INDEX memory_items_key ON memory_items (tenant, namespace, key) WHERE key <> '' AND NOT deleted;
CREATE INDEX memory_items_place ON memory_items (tenant, place_key) WHERE NOT deleted;
CREATE INDEX memory_items_session ON memory_items (tenant, session_id, sequence) INCLUDE (memory_id, namespace)
    WHERE session_id <> '' AND sequence IS NOT NULL AND NOT deleted;
CREATE INDEX memory_items_created ON memory_items (tenant, created_at, memory_id) WHERE NOT deleted;
CREATE INDEX memory_items_text ON memory_items (tenant, text_key) WHERE NOT deleted;
CREATE INDEX memory_items_expiry ON memory_items (expires_at) WHERE expires_at IS NOT NULL AND NOT deleted;
-- On nothing that an update touches, so that updates of unindexed columns stay within their page.
CREATE INDEX memory_items_tombstones ON memory_items (tenant, memory_id) WHERE deleted;
-- Without the pending list every write pays its own share and no search scans other writers' backlog.
CREATE INDEX memory_items_terms ON memory_items USING gin (term_keys) WITH (fastupdate = off);

-- The way to that index, since && is not leakproof and the planner keeps it behind the policy. The function asks what
-- the policy asks, of the same setting; its owner may read all rows and cannot log in. The tenant is compared in a
-- form no index serves, or the plan would now and then read a whole tenant.
CREATE FUNCTION soma_rows_with_terms(keys bigint[]) RETURNS SETOF memory_items
LANGUAGE sql STABLE SECURITY DEFINER ROWS 1000 SET search_path = public, pg_temp AS $$
    SELECT m.* FROM memory_items m
    WHERE m.term_keys && keys AND m.tenant || '' = NULLIF(current_setting('app.tenant', true), '') AND NOT m.deleted
$$;
COMMENT ON FUNCTION soma_rows_with_terms(bigint[]) IS 'The rows of the current tenant that have any of the terms.';

CREATE TABLE memory_versions (
    tenant           text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    memory_id        uuid NOT NULL,
    namespace        text COLLATE "C" NOT NULL,
    key              text COLLATE "C" NOT NULL,
    coordinate       float8[] NOT NULL,
    kind             text COLLATE "C" NOT NULL,
    schema_type      text COLLATE "C" NOT NULL,
    schema_version   text COLLATE "C" NOT NULL,
    persona_id       text COLLATE "C" NOT NULL,
    text             text COLLATE "C" NOT NULL,
    payload          text COLLATE "C" NOT NULL,
    tags             text[] COLLATE "C" NOT NULL,
    actor            text COLLATE "C" NOT NULL,
    session_id       text COLLATE "C" NOT NULL,
    sequence         bigint,
    author           text COLLATE "C" NOT NULL,
    source           text COLLATE "C" NOT NULL,
    confidence       float8,
    importance       float8,
    relevance        float8,
    occurred_at      timestamptz,
    expires_at       timestamptz,
    embedding        bytea,
    embedding_model  text COLLATE "C" NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    version          bigint NOT NULL,
    PRIMARY KEY (tenant, memory_id, version)
);
COMMENT ON TABLE memory_versions IS 'Superseded versions of memories that are still alive.';
ALTER TABLE memory_versions ALTER COLUMN embedding SET STORAGE EXTERNAL;

CREATE TABLE memory_vectors (
    tenant     text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    memory_id  uuid NOT NULL,
    profile    text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    dense      bytea NOT NULL,
    sentences  bytea NOT NULL,
    tokens     bytea NOT NULL,
    token_ids  bytea NOT NULL,
    PRIMARY KEY (tenant, memory_id, profile)
-- A chat turn's vectors (about 3 KB) stay in the row: reading them is one page, not three.
) WITH (toast_tuple_target = 8160);
COMMENT ON TABLE memory_vectors IS 'What the embedder made of a version, apart from the row that lists and filters read.';
ALTER TABLE memory_vectors
    ALTER COLUMN dense SET STORAGE EXTERNAL,
    ALTER COLUMN sentences SET STORAGE EXTERNAL,
    ALTER COLUMN tokens SET STORAGE EXTERNAL,
    ALTER COLUMN token_ids SET STORAGE EXTERNAL;

CREATE TABLE links (
    tenant       text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    source_id    uuid NOT NULL,
    target_id    uuid NOT NULL CHECK (target_id <> source_id),
    relation     text COLLATE "C" NOT NULL,
    strength     float8 NOT NULL CHECK (strength > 0 AND strength <= 1),
    metadata     text COLLATE "C" NOT NULL DEFAULT '',
    valid_from   timestamptz,
    valid_until  timestamptz,
    version      bigint NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant, source_id, relation, target_id)
);
COMMENT ON TABLE links IS 'Directed links between memories of one tenant; they go when either end is forgotten.';
CREATE INDEX links_out ON links (tenant, source_id, strength DESC, target_id);
CREATE INDEX links_in ON links (tenant, target_id, strength DESC, source_id);

CREATE TABLE tenant_revisions (
    tenant     text COLLATE "C" PRIMARY KEY CHECK (tenant <> ''),
    revision   bigint NOT NULL,
    compacted  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE tenant_revisions IS 'The last revision of each tenant, taken as the last step of a transaction, so it has no gaps.';

CREATE TABLE changelog (
    tenant     text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    revision   bigint NOT NULL,
    ordinal    int NOT NULL,
    op         text COLLATE "C" NOT NULL CHECK (op IN ('put', 'forget', 'link', 'unlink')),
    memory_id  uuid NOT NULL,
    namespace  text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    target_id  uuid,
    relation   text COLLATE "C" NOT NULL DEFAULT '',
    at         timestamptz NOT NULL,
    PRIMARY KEY (tenant, revision, ordinal)
);
COMMENT ON TABLE changelog IS 'What each revision changed, by reference: the content is in memory_items or memory_versions.';

CREATE TABLE idempotency (
    tenant        text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    day           date NOT NULL,
    request_id    text COLLATE "C" NOT NULL,
    request_hash  bytea NOT NULL,
    memory_id     uuid,
    revision      bigint NOT NULL,
    version       bigint NOT NULL,
    created       boolean NOT NULL,
    changed       boolean NOT NULL,
    created_at    timestamptz,
    updated_at    timestamptz,
    expires_at    timestamptz,
    snapshot      text COLLATE "C",
    warnings      text[] NOT NULL DEFAULT '{}',
    recorded_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant, day, request_id)
) PARTITION BY RANGE (day);
COMMENT ON TABLE idempotency IS
    'First answers by request id. The day is a function of the id (its timestamp if it is a UUIDv7), so that an id has one place.';
CREATE TABLE idempotency_rest PARTITION OF idempotency DEFAULT;
CREATE INDEX idempotency_rest_recorded ON idempotency_rest (recorded_at);

-- Days are made ahead and dropped whole. Runs with the owner's rights, since the application may create nothing.
CREATE FUNCTION soma_roll_idempotency(keep_days int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '250ms' AS $$
DECLARE
    today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    one date;
    partition text;
    dropped int := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('soma_roll_idempotency')) THEN
        RETURN 0;
    END IF;
    FOR one IN SELECT generate_series(today - 8, today + 8, interval '1 day')::date LOOP
        partition := 'idempotency_' || to_char(one, 'YYYYMMDD');
        -- Rows of that day in the default partition are fine where they are; a day is never split.
        IF to_regclass(partition) IS NULL AND NOT EXISTS (SELECT FROM idempotency_rest WHERE day = one) THEN
            EXECUTE format('CREATE TABLE %I (LIKE idempotency INCLUDING ALL)', partition);
            EXECUTE format('ALTER TABLE idempotency ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           partition, one, one + 1);
        END IF;
    END LOOP;
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'idempotency'::regclass AND c.relname ~ '^idempotency_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < today - keep_days
    LOOP
        EXECUTE format('DROP TABLE %I', partition);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
COMMENT ON FUNCTION soma_roll_idempotency(int) IS 'Make the daily partitions around today and drop those older than keep_days.';
