"""The client's imports, exports and watches against the running servers: what they make good by themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from soma.batch.v1 import batch_service_pb2 as pb
from soma_client import Soma, SomaClient
from soma_client.exporter import Exporter, ExportSettings
from soma_client.import_state import read_state
from soma_client.importer import Importer, ImportProgress, ImportSettings
from soma_client.record_json import line_of
from soma_client.sources import Files, JsonLines, Listed
from soma_client.watcher import Watcher
from soma_contract.errors import FieldViolationError, ImportLeaseLostError, TooManyRefusedError, UnavailableError
from soma_contract.filters import AllOf, TagsAll
from soma_contract.memory import Memory
from tests.integration.batch.callers import caller_of
from tests.integration.batch.streams import exported, memory
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.stack import Office

pytestmark = pytest.mark.stores


@pytest_asyncio.fixture(loop_scope="session")
async def soma(office: Office) -> AsyncIterator[SomaClient]:
    """A client of a new tenant, of the brain: it passes every byte on to the memory server."""
    caller = caller_of(office, await office.agent(through="memory"))
    async with SomaClient.connect(office.stack.brain_address, key=caller.key) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def other(office: Office) -> AsyncIterator[SomaClient]:
    """A client of another new tenant."""
    caller = caller_of(office, await office.agent(through="memory"))
    async with SomaClient.connect(office.stack.memory_address, key=caller.key) as client:
        yield client


def through(proxy: FaultProxy, key: str) -> SomaClient:
    """A client on the other side of a proxy."""
    return SomaClient.connect(f"127.0.0.1:{proxy.port}", key=key, own_connection=True)


def lines(path: Path, count: int, *, wrong: range = range(0)) -> list[str]:
    """Writes a file of so many memories, some of them wrong; returns the texts of the others."""
    texts = [f"note number {number}" for number in range(count)]
    rows = [{"text": text} if number not in wrong else {"txt": text} for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [text for number, text in enumerate(texts) if number not in wrong]


async def stored(client: SomaClient) -> list[str]:
    """The texts of all memories, sorted."""
    return sorted([each.text async for each in client.list()])


async def test_a_file_is_imported_and_told_of_as_it_goes(soma: SomaClient, tmp_path: Path) -> None:
    texts = lines(tmp_path / "notes.jsonl", 1_500)
    told: list[ImportProgress] = []
    importer = Importer(soma, Files([tmp_path / "notes.jsonl"], JsonLines()), on_progress=told.append)
    job = await importer.run()
    assert (pb.IMPORT_STATE_SUCCEEDED, 1_500, 1_500, 0) == (job.state, job.total, job.stored, job.refused)
    assert sorted(texts) == await stored(soma)
    assert [at.committed for at in told] == sorted(at.committed for at in told)
    assert (1_500, told[-1].size) == (told[-1].committed, told[-1].reached)


async def test_wrong_records_are_told_with_their_place_and_what_stood_there(soma: SomaClient, tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    texts = lines(path, 1_200, wrong=range(0, 1_200, 100))
    with path.open("ab") as file:
        file.write(b'{"text": "cut off\n\n{"text": "", "payload_json": "{"}\n{"text": "\xff"}\n')
    importer = Importer(soma, Files([path], JsonLines()))
    job = await importer.run()
    refused = [each async for each in importer.refused()]
    assert (1_188, 15) == (job.stored, job.refused)
    assert [*range(0, 1_200, 100), 1_200, 1_201, 1_202] == [each.offset for each in refused]
    assert [f"notes.jsonl:{line}" for line in (1, 101)] == [each.place for each in refused[:2]]
    assert ["notes.jsonl:1201", "notes.jsonl:1203", "notes.jsonl:1204"] == [each.place for each in refused[-3:]]
    assert 'no field named "txt"' in refused[0].error.message
    assert "is not JSON" in refused[-3].error.message
    assert ["memory.payload_json"] == [name for name, _ in refused[-2].error.violations]
    assert sorted(texts) == await stored(soma)


async def test_a_connection_cut_again_and_again_loses_and_repeats_nothing(
    office: Office, soma: SomaClient, tmp_path: Path
) -> None:
    texts = lines(tmp_path / "notes.jsonl", 1_000)
    host, _, port = soma.target.rpartition(":")
    async with FaultProxy(host, int(port)) as proxy, through(proxy, soma.identity.key) as shaky:

        def cut(at: ImportProgress) -> None:
            if proxy.counts.cut < 8 and at.committed < 900:
                proxy.cut()

        source = Files([tmp_path / "notes.jsonl"], JsonLines())
        importer = Importer(shaky, source, on_progress=cut, chunk_records=20)
        job = await importer.run()
    assert (1_000, 0, 0) == (job.stored, job.skipped, job.refused)
    assert importer.progress.reconnects >= 4
    assert sorted(texts) == await stored(soma)


async def test_another_process_goes_on_where_the_first_was_killed(soma: SomaClient, tmp_path: Path) -> None:
    texts = lines(tmp_path / "notes.jsonl", 1_000)
    source, state = Files([tmp_path / "notes.jsonl"], JsonLines()), tmp_path / "state"
    halfway = asyncio.Event()

    def tell(at: ImportProgress) -> None:
        if at.committed > 300:
            halfway.set()

    first = asyncio.create_task(Importer(soma, source, state=state, on_progress=tell, chunk_records=20).run())
    await halfway.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    kept = read_state(state)
    assert kept is not None
    again = Importer(soma, source, state=state)
    job = await again.run()
    assert (1_000, 1_000, 0) == (job.total, job.stored, job.skipped)
    assert (kept.import_id, True) == (again.import_id, again.progress.resumed_at > 300)
    assert sorted(texts) == await stored(soma)
    assert not state.exists()


async def test_a_state_of_another_source_or_other_options_is_refused(soma: SomaClient, tmp_path: Path) -> None:
    lines(tmp_path / "notes.jsonl", 10)
    state = tmp_path / "state"
    source = Files([tmp_path / "notes.jsonl"], JsonLines())
    stopped = Importer(soma, source, state=state)
    await stopped._begun()
    with pytest.raises(FieldViolationError, match="on_conflict = 'skip'"):
        await Importer(soma, source, state=state, settings=ImportSettings("overwrite")).run()
    lines(tmp_path / "notes.jsonl", 11)
    with pytest.raises(FieldViolationError, match="the source has changed"):
        await Importer(soma, Files([tmp_path / "notes.jsonl"], JsonLines()), state=state).run()


async def test_too_many_refusals_end_the_import_and_are_told(soma: SomaClient, tmp_path: Path) -> None:
    lines(tmp_path / "notes.jsonl", 900, wrong=range(500, 900))
    importer = Importer(
        soma,
        Files([tmp_path / "notes.jsonl"], JsonLines()),
        settings=ImportSettings(max_refused=3),
        state=tmp_path / "state",
    )
    with pytest.raises(TooManyRefusedError):
        await importer.run()
    assert [500, 501, 502, 503] == [each.offset async for each in importer.refused()]
    assert 500 == len(await stored(soma))
    assert not (tmp_path / "state").exists()


async def test_of_two_importers_of_one_job_the_later_goes_on(soma: SomaClient, tmp_path: Path) -> None:
    lines(tmp_path / "notes.jsonl", 2_000)
    source = Files([tmp_path / "notes.jsonl"], JsonLines())
    state = tmp_path / "state"
    going = asyncio.Event()
    first = asyncio.create_task(
        Importer(soma, source, state=state, on_progress=lambda _: going.set(), chunk_records=10).run()
    )
    await going.wait()
    second = asyncio.create_task(Importer(soma, source, state=state).run())
    with pytest.raises(ImportLeaseLostError):
        await first
    job = await second
    assert (2_000, 2_000, 0) == (job.total, job.stored, job.skipped)


async def test_a_server_that_stays_away_is_told_and_leaves_the_state(office: Office, tmp_path: Path) -> None:
    lines(tmp_path / "notes.jsonl", 1_000)
    caller = caller_of(office, await office.agent(through="memory"))
    host, _, port = caller.address.rpartition(":")
    source, state = Files([tmp_path / "notes.jsonl"], JsonLines()), tmp_path / "state"
    async with FaultProxy(host, int(port)) as proxy, through(proxy, caller.key) as shaky:

        def away(at: ImportProgress) -> None:
            proxy.fault = Fault.CUT

        with pytest.raises(UnavailableError):
            await Importer(shaky, source, state=state, on_progress=away, patience_s=0.5, chunk_records=20).run()
    async with SomaClient.connect(caller.address, key=caller.key) as client:
        job = await Importer(client, source, state=state).run()
        assert (1_000, 0) == (job.stored, job.skipped)


async def test_the_client_that_blocks_exports_and_imports_as_well(
    office: Office, soma: SomaClient, other: SomaClient, tmp_path: Path
) -> None:
    await Importer(soma, Listed([Memory(text=f"fact {number}") for number in range(20)])).run()
    path, told = tmp_path / "all.jsonl", list[int]()

    def moved() -> tuple[int, int]:
        with Soma.connect(soma.target, key=soma.identity.key) as here:
            manifest = here.export_file(path)
        with Soma.connect(other.target, key=other.identity.key) as there:
            source = Files([path], JsonLines())
            job = there.import_source(source, on_progress=lambda progress: told.append(progress.committed))
        return manifest.memories, job.stored

    assert (20, 20) == await asyncio.to_thread(moved)
    assert told[-1] == 20


async def test_what_is_exported_is_imported_elsewhere_and_exported_again_the_same(
    office: Office, soma: SomaClient, other: SomaClient, tmp_path: Path
) -> None:
    ids = [memory("").memory.memory_id for _ in range(300)]
    texts = [
        Memory(text=f"Ü {n}", memory_id=ids[n], tags=("even",) if n % 2 == 0 else (), key=f"k.{n}" if n % 3 else "")
        for n in range(300)
    ]
    await Importer(soma, Listed(texts)).run()
    for one, two in ((0, 1), (1, 2)):
        await soma.link(ids[one], ids[two], "references", strength=0.25)
    await office.indexed()

    here = await Exporter(soma, tmp_path / "a.jsonl").run()
    source = Files([tmp_path / "a.jsonl"], JsonLines())
    job = await Importer(other, source).run()
    there = await Exporter(other, tmp_path / "b.jsonl").run()
    assert (302, 0, 0) == (job.stored, job.skipped, job.refused)
    assert (300, 2) == (here.memories, here.links)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    table = await Exporter(soma, tmp_path / "a.parquet").run("parquet")
    assert here.content_sha256 == there.content_sha256 == table.content_sha256
    even = ExportSettings(AllOf((TagsAll(("even",)),)), embeddings=False, links=False)
    assert 150 == (await Exporter(soma, tmp_path / "even.jsonl", settings=even).run()).memories


async def test_an_export_cut_and_killed_goes_on_to_the_same_file(office: Office, tmp_path: Path) -> None:
    caller = caller_of(office, await office.agent(through="memory"))
    async with SomaClient.connect(caller.address, key=caller.key) as client:
        await Importer(
            client, Listed([Memory(text=f"note {n}", payload_json=f'{{"x": "{"y" * 20_000}"}}') for n in range(400)])
        ).run()
    host, _, port = caller.address.rpartition(":")
    async with FaultProxy(host, int(port)) as proxy, through(proxy, caller.key) as shaky:
        path = tmp_path / "notes.jsonl"
        enough, bare = asyncio.Event(), ExportSettings(embeddings=False)

        def tell(at: object) -> None:
            proxy.cut() if proxy.counts.cut < 2 else enough.set()

        exporter = Exporter(shaky, path, settings=bare, on_progress=tell)
        first = asyncio.create_task(exporter.run())
        await asyncio.wait({first, asyncio.create_task(enough.wait())}, return_when=asyncio.FIRST_COMPLETED)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        if not path.exists():
            with (tmp_path / "notes.jsonl.part").open("ab") as torn:
                torn.write(b'{"half a line')
        manifest = await Exporter(shaky, path, settings=bare, resume=True).run()
    assert 400 == manifest.memories
    assert b"".join(map(line_of, await exported(caller))) == path.read_bytes()
    assert ["notes.jsonl", "notes.jsonl.manifest.json"] == sorted(each.name for each in tmp_path.iterdir())


async def test_a_watch_cut_again_and_again_tells_every_revision_once(office: Office) -> None:
    caller = caller_of(office, await office.agent(through="memory"))
    host, _, port = caller.address.rpartition(":")
    async with (
        FaultProxy(host, int(port)) as proxy,
        SomaClient.connect(caller.address, key=caller.key) as client,
        through(proxy, caller.key) as shaky,
    ):
        texts = [f"note {number}" for number in range(40)]

        async def write() -> None:
            for text in texts:
                await client.remember(text)

        writing = asyncio.create_task(write())
        told: list[tuple[int, str]] = []
        async with aclosing(Watcher(shaky, 0)) as watcher, asyncio.timeout(30):
            async for change_set in watcher:
                told += [(change_set.revision, each.memory_stored.memory.text) for each in change_set.changes]
                if len(told) % 7 == 0:
                    proxy.cut()
                if len(told) == len(texts):
                    break
        await writing
    assert [(number + 1, text) for number, text in enumerate(texts)] == told
    assert watcher.reconnects >= 3
