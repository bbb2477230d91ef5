-- Write a batch of links: those made or changed, those removed, then the revision counter, changelog and answers.
-- The counter's row is locked last and so for the shortest time: its part waits for the parts it counts.
-- $1 tenant, $2 now, $3 number of revisions, $4 … $16 links, $17 … $19 removed ones, $20 … $27 changelog,
-- $28 … $35 answers
WITH stored AS (
    INSERT INTO links AS l (tenant, source_id, target_id, relation, strength, metadata, valid_from, valid_until, version,
                            created_at, updated_at, made_by, origin_at, origin_brain)
    SELECT $1, p.*
    FROM unnest($4::uuid[], $5::uuid[], $6::text[], $7::float8[], $8::text[], $9::timestamptz[], $10::timestamptz[],
                $11::bigint[], $12::timestamptz[], $13::timestamptz[], $14::text[], $15::timestamptz[], $16::text[]) AS p
    ON CONFLICT (tenant, source_id, relation, target_id) DO UPDATE SET
        strength = excluded.strength, metadata = excluded.metadata, valid_from = excluded.valid_from,
        valid_until = excluded.valid_until, version = excluded.version, updated_at = excluded.updated_at,
        made_by = excluded.made_by, origin_at = excluded.origin_at, origin_brain = excluded.origin_brain
    RETURNING 1
), removed AS (
    -- By the primary key and in its order, which is the same for everybody who removes.
    DELETE FROM links l
    WHERE l.tenant = $1 AND l.source_id = ANY ($17::uuid[]) AND l.relation = ANY ($18::text[])
      AND l.target_id = ANY ($19::uuid[])
      AND (l.source_id, l.relation, l.target_id) IN (
          SELECT k.source_id, k.relation, k.target_id
          FROM unnest($17::uuid[], $18::text[], $19::uuid[]) AS k (source_id, relation, target_id)
      )
    RETURNING 1
), bumped AS (
    INSERT INTO tenant_revisions AS t (tenant, revision)
    SELECT $1, $3::bigint WHERE (SELECT count(*) FROM stored) + (SELECT count(*) FROM removed) >= 0
    ON CONFLICT (tenant) DO UPDATE SET revision = t.revision + excluded.revision
    RETURNING revision - $3::bigint AS before
), logged AS (
    INSERT INTO changelog (tenant, revision, ordinal, op, memory_id, namespace, version, target_id, relation, at)
    SELECT $1, b.before + e.step, e.ordinal, e.op, e.memory_id, e.namespace, e.version, e.target_id, e.relation, $2
    FROM bumped b CROSS JOIN unnest(
        $20::int[], $21::int[], $22::text[], $23::uuid[], $24::text[], $25::bigint[], $26::uuid[], $27::text[]
    ) AS e (step, ordinal, op, memory_id, namespace, version, target_id, relation)
), answered AS (
    INSERT INTO idempotency (tenant, day, request_id, request_hash, revision, version, created, changed, snapshot,
                             recorded_at)
    SELECT $1, a.day, a.request_id, a.request_hash, b.before + a.step, a.version, a.created, a.changed, a.snapshot, $2
    FROM bumped b CROSS JOIN unnest(
        $28::date[], $29::text[], $30::bytea[], $31::int[], $32::bigint[], $33::bool[], $34::bool[], $35::text[]
    ) AS a (day, request_id, request_hash, step, version, created, changed, snapshot)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT before FROM bumped) AS before, (SELECT count(*) FROM answered) AS answered;
