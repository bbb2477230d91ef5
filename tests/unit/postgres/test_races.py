"""Two servers on one Postgres, slow neighbours, bad rows, lost connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from memory_server.ports import Journal
from memory_server.stores.analysing import analysis
from memory_server.stores.postgres.journal import open_journal
from memory_server.stores.postgres.pools import PoolSizes, open_pools
from soma_contract.errors import (
    BudgetSpentError,
    ComponentUnavailableError,
    InternalError,
    KeyTakenError,
    SomaError,
    WriteConflictError,
)
from soma_contract.filters import EVERYTHING
from soma_contract.ids import new_memory_id
from soma_contract.memory import Command, Forget, Memory, Target, Update, Written
from soma_contract.tenant import Tenant
from tests.conformance.truth_stores import Database, TruthInPostgres, remember, stored, written

pytestmark = pytest.mark.stores


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers(truth_database: Database) -> AsyncIterator[list[Journal]]:
    """Three journals that share nothing but the database."""
    async with AsyncExitStack() as stack:
        journals: list[Journal] = []
        for _ in range(3):
            pools = await stack.enter_async_context(open_pools(truth_database.url, PoolSizes(4, 1, 1, 1)))
            journals.append(await stack.enter_async_context(open_journal(pools, analysis())))
        yield journals


async def at_once(servers: list[Journal], tenant: Tenant, *commands: Command) -> list[Written | SomaError]:
    """Send the commands to the servers in turn, all at the same moment."""
    calls = [servers[number % len(servers)].write(tenant, [command]) for number, command in enumerate(commands)]
    return [answer for (answer,) in await asyncio.gather(*calls)]


async def test_servers_make_contiguous_versions_and_revisions_together(servers: list[Journal], tenant: Tenant) -> None:
    commands = [remember(f"note {number}", key=f"k{number % 4}") for number in range(120)]
    answers = [written(answer) for answer in await at_once(servers, tenant, *commands)]
    assert list(range(1, 121)) == sorted(answer.revision for answer in answers)
    versions: dict[str, list[int]] = {}
    for answer in answers:
        assert answer.memory is not None
        versions.setdefault(answer.memory.key, []).append(answer.memory.version)
    assert {f"k{number}": list(range(1, 31)) for number in range(4)} == {
        key: sorted(numbers) for key, numbers in versions.items()
    }


async def test_a_request_sent_to_all_servers_takes_effect_once(servers: list[Journal], tenant: Tenant) -> None:
    for round_ in range(10):
        # A UUIDv7, which has a partition of its day, and a name, which has none.
        request_id = new_memory_id() if round_ % 2 else f"request-{round_}"
        answers = await at_once(servers, tenant, *(remember("tea", request_id=request_id) for _ in range(6)))
        assert 1 == len({repr(answer) for answer in answers})
    assert 10 == await servers[0].revision(tenant)


async def test_one_of_many_gets_a_key_and_the_others_are_told(servers: list[Journal], tenant: Tenant) -> None:
    for round_ in range(10):
        commands = [remember("tea", memory_id=new_memory_id(), key=f"k{round_}") for _ in range(6)]
        answers = await at_once(servers, tenant, *commands)
        kinds = sorted(type(answer).__name__ for answer in answers)
        assert [KeyTakenError.__name__] * 5 + [Written.__name__] == kinds


async def test_if_absent_lets_one_of_many_create_a_memory(servers: list[Journal], tenant: Tenant) -> None:
    for round_ in range(10):
        commands = [remember(f"tea {number}", key=f"k{round_}", if_absent=True) for number in range(6)]
        answers = await at_once(servers, tenant, *commands)
        assert 1 == sum(isinstance(answer, Written) for answer in answers)


async def test_if_match_lets_one_of_many_change_a_version(servers: list[Journal], tenant: Tenant) -> None:
    await servers[0].write(tenant, [remember("tea", key="k")])
    for version in range(1, 11):
        updates = [
            Update(Target(key="k"), Memory(text=f"tea {version} {number}"), ("text",), if_match=version)
            for number in range(6)
        ]
        answers = await at_once(servers, tenant, *updates)
        assert 1 == sum(isinstance(answer, Written) for answer in answers)


async def test_opposite_orders_of_the_same_memories_end(servers: list[Journal], tenant: Tenant) -> None:
    keys = [f"k{number}" for number in range(12)]
    forwards: list[Command] = [remember("one", key=key) for key in keys]
    backwards: list[Command] = [Forget(Target(key=key), allow_missing=True) for key in reversed(keys)]
    for _ in range(10):
        calls = [
            servers[0].write(tenant, forwards),
            servers[1].write(tenant, backwards),
            servers[2].write(tenant, forwards),
        ]
        for answers in await asyncio.gather(*calls):
            assert all(isinstance(answer, Written) for answer in answers)


async def test_a_row_that_somebody_holds_delays_only_its_own_writers(
    truth_in_postgres: TruthInPostgres, tenant: Tenant
) -> None:
    (held,) = await stored(truth_in_postgres, tenant, remember("held", key="held"))
    journal = truth_in_postgres.journal
    async with truth_in_postgres.pools.bulk.tenant(tenant) as holder:
        await holder.execute("SELECT 1 FROM memory_items WHERE memory_id = $1 FOR UPDATE", held.memory_id)
        answers = await asyncio.gather(
            journal.write(tenant, [remember("late", key="held")]),
            *(journal.write(tenant, [remember("free", key=f"free-{number}")]) for number in range(20)),
            return_exceptions=True,
        )
    assert isinstance(answers[0], WriteConflictError)
    assert not [answer for answer in answers[1:] if isinstance(answer, BaseException)]
    assert written((await journal.write(tenant, [remember("late", key="held")]))[0]).changed


async def test_a_row_postgres_cannot_take_is_refused_alone(truth_in_postgres: TruthInPostgres, tenant: Tenant) -> None:
    journal = truth_in_postgres.journal
    answers = await asyncio.gather(
        *(journal.write(tenant, [remember(f"good {number}")]) for number in range(10)),
        journal.write(tenant, [remember("bad", payload_json="{not json")]),
        *(journal.write(tenant, [remember(f"fine {number}")]) for number in range(10)),
        return_exceptions=True,
    )
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [InternalError] == [type(error) for error in failed]
    assert "json" not in str(failed[0])
    assert 20 == await journal.revision(tenant)


async def test_a_cancelled_writers_batch_is_committed_all_the_same(
    truth_in_postgres: TruthInPostgres, tenant: Tenant
) -> None:
    journal = truth_in_postgres.journal
    async with asyncio.TaskGroup() as calls:
        writers = [calls.create_task(journal.write(tenant, [remember(f"note {number}")])) for number in range(50)]
        await writers[0]
        for writer in writers[1::2]:
            writer.cancel()
    finished = [writer for writer in writers if not writer.cancelled()]
    assert len(finished) >= 25
    revision = await journal.revision(tenant)
    assert revision >= len(finished)
    assert revision == len(await journal.matching_ids(tenant, EVERYTHING, 1_000))


async def test_a_deadline_is_kept_while_a_row_is_held(truth_in_postgres: TruthInPostgres, tenant: Tenant) -> None:
    (held,) = await stored(truth_in_postgres, tenant, remember("held", key="held"))
    loop = asyncio.get_running_loop()
    async with truth_in_postgres.pools.bulk.tenant(tenant) as holder:
        await holder.execute("SELECT 1 FROM memory_items WHERE memory_id = $1 FOR UPDATE", held.memory_id)
        started = loop.time()
        with pytest.raises((BudgetSpentError, WriteConflictError)):
            await truth_in_postgres.journal.write(tenant, [remember("late", key="held")], deadline_s=0.15)
        assert loop.time() - started < 0.4


async def test_a_connection_that_breaks_is_an_outage_and_then_none(
    servers: list[Journal], truth_in_postgres: TruthInPostgres, tenant: Tenant
) -> None:
    await servers[0].write(tenant, [remember("before")])
    await truth_in_postgres.admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'soma interactive' AND datname = current_database()"
    )
    outcomes: list[object] = []
    for number in range(5):
        command = remember("after", key="k", request_id=f"r-{number}")
        outcomes += await asyncio.gather(servers[0].write(tenant, [command]), return_exceptions=True)
    assert {list, ComponentUnavailableError} >= {type(outcome) for outcome in outcomes}
    assert "terminat" not in repr(outcomes)
    assert isinstance(outcomes[-1], list)
    (memory,) = await servers[0].get(tenant, [Target(key="k")])
    assert memory is not None


async def test_reads_that_are_cancelled_leave_no_connection_behind(
    truth_in_postgres: TruthInPostgres, tenant: Tenant
) -> None:
    (memory,) = await stored(truth_in_postgres, tenant, remember("tea"))
    target = [Target(memory_id=memory.memory_id)]
    for wait in range(60):
        call = asyncio.ensure_future(truth_in_postgres.journal.get(tenant, target))
        for _ in range(wait % 12):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    pool = truth_in_postgres.pools.interactive.pool
    assert pool.get_size() == pool.get_idle_size()
    assert [memory] == await truth_in_postgres.journal.get(tenant, target)
