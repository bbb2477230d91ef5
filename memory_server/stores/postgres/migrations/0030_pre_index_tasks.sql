-- Work on whole collections: comparisons with the truth, rebuilding, embedding anew.
-- oldest server: 1

CREATE TABLE index_tasks (
    task_id        uuid PRIMARY KEY,
    kind           text COLLATE "C" NOT NULL CHECK (kind IN ('rebuild', 're_embed', 'reconcile')),
    state          text COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    tenant         text COLLATE "C" NOT NULL DEFAULT '',
    collection     text COLLATE "C" NOT NULL DEFAULT '',
    profile        text COLLATE "C" NOT NULL DEFAULT '',
    dimension      int NOT NULL DEFAULT 0,
    repair         boolean NOT NULL DEFAULT false,
    poisoned_only  boolean NOT NULL DEFAULT false,
    -- Started by the servers' own timetable, not by an operator.
    scheduled      boolean NOT NULL DEFAULT false,
    -- How far it is, in the words of whoever does it: JSON.
    progress       text NOT NULL DEFAULT '{}',
    done           bigint NOT NULL DEFAULT 0,
    total          bigint NOT NULL DEFAULT 0,
    compared       bigint NOT NULL DEFAULT 0,
    missing        bigint NOT NULL DEFAULT 0,
    outdated       bigint NOT NULL DEFAULT 0,
    orphaned       bigint NOT NULL DEFAULT 0,
    repaired       bigint NOT NULL DEFAULT 0,
    reason         text COLLATE "C" NOT NULL DEFAULT '',
    message        text COLLATE "C" NOT NULL DEFAULT '',
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    lease          uuid,
    leased_until   timestamptz
);
COMMENT ON TABLE index_tasks IS 'What the contract calls a job of the index; taken up again where it was when its server dies.';
-- One at a time of a scope.
CREATE UNIQUE INDEX index_tasks_open ON index_tasks (kind, tenant, collection, profile, repair, poisoned_only)
    WHERE state IN ('waiting', 'running');
CREATE INDEX index_tasks_created ON index_tasks (created_at DESC, task_id);

CREATE INDEX index_jobs_poisoned ON index_jobs (queued_at, tenant, memory_id) WHERE poisoned;

CREATE POLICY all_tenants ON index_tasks TO soma_worker USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON index_tasks TO soma_worker;
