-- The index pipeline: jobs, collections, embedding profiles and the corpus statistics of keyword search.
-- oldest server: 1

-- A narrow table of its own, because marking a row as indexed must not rewrite the memory and its indexes.
CREATE TABLE index_jobs (
    tenant           text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    memory_id        uuid NOT NULL,
    version          bigint NOT NULL,
    -- When it may be claimed; NULL where there is nothing to do. A claim moves it to the end of the lease.
    due_at           timestamptz,
    queued_at        timestamptz NOT NULL,
    leased_until     timestamptz,
    lease            uuid,
    attempts         int NOT NULL DEFAULT 0,
    poisoned         boolean NOT NULL DEFAULT false,
    reason           text COLLATE "C" NOT NULL DEFAULT '',
    indexed_version  bigint NOT NULL DEFAULT 0,
    -- 0 while the index does not hold the current version; else the epoch of the collection that does.
    indexed_epoch    bigint NOT NULL DEFAULT 0,
    moved_at         timestamptz NOT NULL,
    PRIMARY KEY (tenant, memory_id)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE index_jobs IS 'One row a memory: what the index holds of it, and the job when that is not the truth.';
CREATE INDEX index_jobs_due ON index_jobs (tenant, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX index_jobs_overlay ON index_jobs (tenant, indexed_epoch, moved_at DESC) INCLUDE (memory_id);

CREATE SEQUENCE index_epochs;
CREATE TABLE index_collections (
    name          text COLLATE "C" PRIMARY KEY,
    profile       text COLLATE "C" NOT NULL,
    tenant        text COLLATE "C" NOT NULL DEFAULT '',
    epoch         bigint NOT NULL,
    dimension     int NOT NULL,
    filled        boolean NOT NULL DEFAULT false,
    -- How far the rows of an older epoch have been queued again, by tenant; NULL when all are.
    requeue_from  text COLLATE "C",
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (profile, tenant)
);
COMMENT ON TABLE index_collections IS 'The active index collections: one an embedding profile (tenant empty), or a tenant''s own.';

CREATE TABLE embedding_profiles (
    tenant     text COLLATE "C" PRIMARY KEY CHECK (tenant <> ''),
    profile    text COLLATE "C" NOT NULL,
    dimension  int NOT NULL,
    since      timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE embedding_profiles IS 'What a tenant''s memories are embedded with.';

-- Writes append what they changed, the indexer folds it into the counts: no write waits for a hot term's row.
CREATE TABLE term_changes (
    tenant     text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    id         bigint GENERATED ALWAYS AS IDENTITY,
    namespace  text COLLATE "C" NOT NULL,
    sign       smallint NOT NULL CHECK (sign IN (-1, 1)),
    term_keys  bigint[] NOT NULL,
    length     int NOT NULL,
    PRIMARY KEY (tenant, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE term_changes IS 'Changes of the corpus that term_stats does not hold yet.';

CREATE TABLE term_stats (
    tenant     text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    term_key   bigint NOT NULL,
    namespace  text COLLATE "C" NOT NULL,
    frequency  bigint NOT NULL,
    PRIMARY KEY (tenant, term_key, namespace)
) WITH (fillfactor = 80);
COMMENT ON TABLE term_stats IS 'In how many memories of a namespace a term occurs.';

CREATE TABLE corpus_stats (
    tenant     text COLLATE "C" NOT NULL CHECK (tenant <> ''),
    namespace  text COLLATE "C" NOT NULL,
    memories   bigint NOT NULL,
    length     bigint NOT NULL,
    PRIMARY KEY (tenant, namespace)
) WITH (fillfactor = 50);
COMMENT ON TABLE corpus_stats IS 'How many memories a namespace has and how many terms they have together.';
