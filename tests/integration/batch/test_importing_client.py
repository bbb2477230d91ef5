"""The Python client's import: one job, whatever becomes of its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rpckit.metadata import new_request_id
from soma.batch.v1 import batch_service_pb2 as pb
from soma_client import SomaClient
from soma_client.import_run import ImportRun
from soma_client.record_feed import RecordFeed
from soma_contract.errors import ImportNotActiveError, OffsetGapError
from tests.integration.batch.callers import caller_of
from tests.integration.batch.streams import memories, memory
from tests.support.cutting import CuttingProxy
from tests.support.stack import Office

pytestmark = [pytest.mark.processes]

CUT_AFTER = 100_000


def wide(count: int) -> list[pb.Record]:
    """Records of about 1 KB."""
    return [memory(f"fact number {number} " + "of many " * 100, key=f"fact.{number}") for number in range(count)]


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(office: Office) -> AsyncIterator[CuttingProxy]:
    """A network before the brain that breaks once, in the middle of the records."""
    async with CuttingProxy(office.stack.brain_address, after_bytes=CUT_AFTER) as cutting:
        yield cutting


@pytest_asyncio.fixture(loop_scope="session")
async def soma(office: Office, proxy: CuttingProxy) -> AsyncIterator[SomaClient]:
    """A client behind that network, for a tenant of its own."""
    caller = caller_of(office, await office.agent())
    async with SomaClient.connect(proxy.address, key=caller.key, tenant=caller.agent.tenant) as client:
        yield client


async def test_an_import_that_is_cut_goes_on_and_stores_each_record_once(soma: SomaClient, proxy: CuttingProxy) -> None:
    job = await soma.create_import(on_conflict="fail")
    acks: list[int] = []

    done = await soma.import_records(
        job.import_id, iter(wide(300)), chunk_records=20, on_ack=lambda ack: acks.append(ack.committed_offset)
    )

    assert (1, 2) == (proxy.cuts, proxy.connections)
    assert (pb.IMPORT_STATE_SUCCEEDED, 300, 300, 0) == (done.state, done.total, done.stored, done.refused)
    assert sorted(acks) == acks
    assert 300 == len([memory async for memory in soma.list(page_size=1000)])


async def test_another_process_passes_over_what_the_job_has(office: Office) -> None:
    caller = caller_of(office, await office.agent(through="brain"), through="brain")
    records = memories(50)

    class Died(Exception):  # noqa: N818
        pass

    async def dying() -> AsyncIterator[pb.Record]:
        for record in records[:35]:
            yield record
        raise Died

    async with SomaClient.connect(caller.address, key=caller.key, tenant=caller.agent.tenant) as soma:
        job = await soma.create_import(on_conflict="fail")
        with pytest.raises(Died):
            await soma.import_records(job.import_id, dying(), chunk_records=10)
        done = await soma.import_records(job.import_id, records, chunk_records=10)
        again = await soma.import_records(job.import_id, records, chunk_records=10)
    assert (50, 50, 0) == (done.total, done.stored, done.refused)
    assert (50, 50, 0) == (again.total, again.stored, again.refused)


async def test_an_empty_import_finishes(soma: SomaClient) -> None:
    done = await soma.import_records((await soma.create_import()).import_id, [])
    assert (pb.IMPORT_STATE_SUCCEEDED, 0) == (done.state, done.total)


async def test_what_the_server_refuses_is_raised_and_not_tried_again(soma: SomaClient, proxy: CuttingProxy) -> None:
    job = await soma.create_import(request_id=new_request_id())
    await soma.cancel_import(job.import_id)
    with pytest.raises(ImportNotActiveError):
        await soma.import_records(job.import_id, memories(1))
    assert 1 == proxy.connections


async def test_records_that_are_slow_to_come_are_not_lost_with_the_connection(
    soma: SomaClient, proxy: CuttingProxy
) -> None:
    records = wide(300)
    # The chunks before this record's are more than the first connection lets through, so that it breaks meanwhile.
    awaited = 20 * (CUT_AFTER // records[0].ByteSize() // 20 + 1) + 10

    async def slow() -> AsyncIterator[pb.Record]:
        for number, record in enumerate(records):
            while number == awaited and proxy.connections < 2:  # noqa: ASYNC110 - the proxy tells nobody
                await asyncio.sleep(0.01)
            yield record

    job = await soma.create_import(on_conflict="fail")
    done = await soma.import_records(job.import_id, slow(), chunk_records=20)
    assert (1, 300, 300, 0) == (proxy.cuts, done.total, done.stored, done.refused)


async def test_a_client_that_kept_nothing_would_be_found_out(soma: SomaClient) -> None:
    class Forgetful(RecordFeed):
        async def rewind(self, committed_offset: int) -> None:
            self._unacknowledged.clear()
            await super().rewind(committed_offset)

    job = await soma.create_import()
    with pytest.raises(OffsetGapError):
        await ImportRun(soma, job.import_id, Forgetful(wide(300), 20)).run()
