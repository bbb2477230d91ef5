"""Bugs that have been made elsewhere, or nearly here, each with the test that catches it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """A replacement in a file; ``before`` stands there exactly once."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug and the test that must fail with it."""

    name: str
    edits: tuple[Edit, ...]
    test: str


_QUERIES = "memory_server/stores/postgres/queries"
_JOURNAL = "tests/conformance/test_journal.py"

BUGS = (
    Bug(
        "a write is acknowledged before its fsync",
        (Edit("brain_server/gateway/outbox.py", "if self.durable is not None:", "if False:"),),
        "tests/unit/brain/test_delivery.py::test_a_write_that_could_not_be_kept_is_not_acknowledged",
    ),
    Bug(
        "a transaction is not committed before it is answered",
        (
            Edit(
                "memory_server/stores/postgres/transactions.py",
                'await connection.execute("COMMIT")',
                'await connection.execute("ROLLBACK")',
            ),
        ),
        f"{_JOURNAL}::test_every_field_of_a_memory_is_read_back_as_it_was_written",
    ),
    Bug(
        "the outbox forgets its fsyncs",
        (Edit("brain_server/stores/sqlite/file.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"),),
        "tests/unit/brain/test_brain_file.py::test_the_pragmas_are_read_back",
    ),
    Bug(
        "a brain forgets what it has delivered",
        (
            Edit(
                "brain_server/domain/settled.py",
                "return self._kept.get((tenant, request_id))",
                "return None",
            ),
        ),
        "tests/unit/brain/test_repeated_requests.py"
        "::test_a_repeated_request_does_not_stand_over_what_was_written_since",
    ),
    Bug(
        "repeated requests are not looked up",
        (
            Edit(
                f"{_QUERIES}/find_requests.sql",
                "request_id = ANY ($2::text[])",
                "request_id = ANY ($2::text[]) AND false",
            ),
        ),
        f"{_JOURNAL}::test_a_repeated_request_gets_the_first_answer",
    ),
    Bug(
        "another request under the same id gets the first one's answer",
        (
            Edit(
                "memory_server/stores/postgres/repetitions.py",
                'if record["request_hash"] != request.fingerprint:',
                "if False:",
            ),
        ),
        f"{_JOURNAL}::test_a_request_id_is_refused_for_another_request",
    ),
    Bug(
        "hits are not checked against the truth",
        (Edit(f"{_QUERIES}/pool.sql", "WHERE {live} AND {filter}\n", "WHERE true OR ({live} AND {filter})\n"),),
        "tests/conformance/test_recall_source.py::test_the_pool_refuses_ids_that_do_not_match_live_or_belong",
    ),
    Bug(
        "row-level security lets everything through and a query forgets its tenant",
        (
            Edit(
                "memory_server/stores/postgres/migrations/grants.sql",
                "' USING (tenant = NULLIF(current_setting(''app.tenant'', true), ''''))'",
                "' USING (true)'",
            ),
        ),
        "tests/unit/postgres/test_walls.py::test_a_query_that_forgets_the_tenant_sees_one_tenant",
    ),
    Bug(
        "cache keys do not name the tenant",
        (
            Edit(
                "memory_server/stores/redis/keys.py",
                'owner = "shared" if tenant is None else f"t:{tenant.name}"',
                'owner = "shared"',
            ),
        ),
        "tests/conformance/test_cache.py::test_another_tenants_memory_is_not_there",
    ),
    Bug(
        "a cached value is believed under any key",
        (
            Edit(
                "memory_server/stores/redis/keys.py",
                "if value is None or value[:BINDING_BYTES] != binding(key):",
                "if value is None:",
            ),
        ),
        "tests/unit/redis/test_cache_in_trouble.py::test_a_value_under_another_key_is_a_miss_and_is_counted",
    ),
    Bug(
        "tombstones are dropped",
        (
            Edit(
                "memory_server/stores/redis/cache.py",
                "self._owed.versions[tenant, memory_id] = max(held, version)",
                "max(held, version)",
            ),
        ),
        "tests/conformance/test_cache.py::test_a_tombstone_keeps_late_values_out_and_newer_ones_in",
    ),
    Bug(
        "changes are followed by revisions greater than the last",
        (
            Edit(
                f"{_QUERIES}/read_changes.sql",
                "(c.revision, c.ordinal) > ($2::bigint, $3::int)",
                "c.revision > $2::bigint AND $3::int IS NOT NULL",
            ),
        ),
        "tests/integration/batch/test_watching.py::test_an_import_commit_is_one_revision",
    ),
    Bug(
        "a caller may name any tenant",
        (
            Edit(
                "rpckit/interceptors/tenant.py",
                "if named not in caller.tenants and not caller.may_act_as:",
                "if not named:",
            ),
        ),
        "tests/servicers/rpckit/test_callers.py::test_a_caller_that_may_not_is_refused",
    ),
    Bug(
        "labels are not quoted in index expressions",
        (Edit("memory_server/stores/milvus/quoting.py", "return f'\"{encoded(label)}\"'", "return f'\"{label}\"'"),),
        "tests/unit/milvus/test_quoting.py::test_a_literal_holds_no_quote_escape_template_or_control_character",
    ),
    Bug(
        "what has expired lives on",
        (
            Edit(
                "memory_server/stores/postgres/filters.py",
                "NOT m.deleted AND (m.expires_at IS NULL OR m.expires_at > statement_timestamp())",
                "NOT m.deleted",
            ),
        ),
        f"{_JOURNAL}::test_an_expired_memory_is_gone_for_every_reader",
    ),
    Bug(
        "a version demanded is not compared",
        (
            Edit(
                "memory_server/stores/deciding.py",
                "if command.if_match is not None and (alive is None or alive.memory.version != command.if_match):",
                "if command.if_match is not None and alive is None:",
            ),
        ),
        f"{_JOURNAL}::test_if_match_lets_only_the_named_version_be_replaced",
    ),
    Bug(
        "an older version is marked as indexed in place of the present one",
        (
            Edit(
                f"{_QUERIES}/settle_job.sql",
                "due_at = CASE WHEN j.version = $4::bigint AND $5::bigint > 0 THEN NULL",
                "due_at = CASE WHEN $5::bigint > 0 THEN NULL",
            ),
        ),
        "tests/conformance/test_index_queue.py::test_a_memory_in_work_is_not_claimed_again_when_it_is_written",
    ),
    Bug(
        "writes to one memory overtake each other",
        (Edit("brain_server/domain/ordering.py", "behind += bool(line)", "behind += 0"),),
        "tests/unit/brain/test_delivery.py::test_writes_to_one_memory_arrive_in_order_and_others_do_not_wait",
    ),
    Bug(
        "an outage uses up the tries of a write",
        (Edit("brain_server/domain/retrying.py", "        Code.UNAVAILABLE,\n", ""),),
        "tests/unit/brain/test_delivery.py::test_an_outage_of_a_day_uses_up_nothing",
    ),
    Bug(
        "pending writes are looked up beside long-term memory",
        (
            Edit(
                "brain_server/core/recalling.py",
                "pending = await PendingNow.of(tenant, self.pending)",
                "pending = PendingNow()",
            ),
        ),
        "tests/servicers/brain/test_delivered_meanwhile.py::test_a_forgotten_memory_is_not_recalled",
    ),
    Bug(
        "rows of strangers stay in the index",
        (
            Edit(
                "memory_server/core/reconciling.py",
                "known |= await self.truth.belonging(collection, sorted(strangers))",
                "page = replace(page, held={key: one for key, one in page.held.items() if key[0] in known})",
            ),
        ),
        "tests/integration/index/test_reconciling.py::test_rows_of_a_tenant_nobody_knows_leave_the_index",
    ),
)

NO_CHECK_OF_HITS = (
    Edit(
        f"{_QUERIES}/pool.sql",
        "WHERE i.tenant = gate.tenant AND i.memory_id = named.memory_id OFFSET 0",
        "WHERE i.memory_id = named.memory_id AND gate.tenant IS NOT NULL OFFSET 0",
    ),
    Edit(
        f"{_QUERIES}/pool.sql",
        "WHERE {live} AND {filter}\n    ){near}",
        "WHERE true OR ({live} AND {filter})\n    ){near}",
    ),
)
"""Recall without the re-reading of hits: whatever the index proposes is answered."""
