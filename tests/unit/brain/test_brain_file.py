"""The brain's file: durable by its pragmas, unreadable without its keys, one brain at a time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from brain_server.domain.entry import Entry, EntryState, Rejection
from brain_server.domain.settled import Settled
from brain_server.ports import OutboxFile
from brain_server.stores.inmemory.entries import InMemoryOutbox
from brain_server.stores.sqlite.entries import SqliteOutbox
from brain_server.stores.sqlite.errors import BrainFileError
from brain_server.stores.sqlite.file import FILE_NAME, BrainFile, assert_durable
from brain_server.stores.sqlite.keyring import default_key_file
from soma_contract.errors import Code, ComponentUnavailableError, OutboxFullError
from tests.unit.brain.conftest import tenant
from tests.unit.brain.virtual_time import START

ALICE, BOB = tenant("alice"), tenant("bob")
CANARY = b"canary-5f3c9d1e77aa"


def entry(number: int, who: str = "alice", epoch: int = 0) -> Entry:
    return Entry(
        sequence=number,
        tenant=tenant(who),
        entry_id=f"e{number}",
        request_id=f"r{number}",
        operation="remember",
        touched=(f"m{number}", "shared"),
        origin_at=START,
        brain_id="b1",
        epoch=epoch,
        size=len(CANARY),
        digest=b"0123456789abcdef",
    )


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[BrainFile, SqliteOutbox]]:
    async with BrainFile(path) as file:
        yield file, SqliteOutbox(file)


class Twins:
    """Opens the same outbox again and again, as restarts do."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self.path = path
        self.memory = InMemoryOutbox()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OutboxFile]:
        if self.kind == "memory":
            yield self.memory
        else:
            async with opened(self.path) as (_, outbox):
                yield outbox


@pytest.fixture(params=["memory", "sqlite"])
def twins(request: pytest.FixtureRequest, tmp_path: Path) -> Twins:
    return Twins(request.param, tmp_path / "brain")


async def test_what_was_appended_is_there_after_a_restart(twins: Twins) -> None:
    async with twins.open() as file:
        for number in (1, 2, 3):
            await file.append(entry(number), CANARY + str(number).encode())
        digest = file.digest(b"x")
    async with twins.open() as file:
        contents = await file.load()
        assert contents.entries == (entry(1), entry(2), entry(3))
        assert (contents.last_sequence, contents.epochs) == (3, {})
        assert [await file.payload(each) for each in contents.entries] == [CANARY + n for n in (b"1", b"2", b"3")]
        assert (file.digest(b"x"), file.digest(b"y") == digest) == (digest, False)


async def test_settled_and_discarded_entries_are_gone_and_their_numbers_are_not_used_again(twins: Twins) -> None:
    async with twins.open() as file:
        for number in (1, 2):
            await file.append(entry(number), CANARY)
        file.settle(entry(1))
        await file.discard(entry(2))
    async with twins.open() as file:
        contents = await file.load()
        assert (contents.entries, contents.last_sequence) == ((), 2)
        with pytest.raises(KeyError):
            await file.payload(entry(2))


async def test_requests_of_settled_entries_are_kept_until_they_are_old_or_erased(twins: Twins) -> None:
    def settled(number: int, who: str = "alice") -> Settled:
        return Settled(who, f"r{number}", b"0123456789abcdef", START + timedelta(seconds=number))

    async with twins.open() as file:
        for number in (2, 1, 3):
            await file.append(entry(number), CANARY)
            file.settle(entry(number), settled(number))
        await file.append(entry(4, "bob"), CANARY)
        file.settle(entry(4, "bob"), settled(4, "bob"))
        await file.noted()
    async with twins.open() as file:
        assert (await file.load()).settled == (settled(1), settled(2), settled(3), settled(4, "bob"))
        file.forget_settled(START + timedelta(seconds=2))
        await file.noted()
        assert (await file.load()).settled == (settled(2), settled(3), settled(4, "bob"))
        await file.fence(ALICE, 1)
        assert (await file.load()).settled == (settled(4, "bob"),)


async def test_marks_are_kept(twins: Twins) -> None:
    dead = replace(
        entry(1), state=EntryState.DEAD, attempts=3, rejection=Rejection(Code.INTERNAL, "INTERNAL", "no; it's broken")
    )
    tried = replace(entry(2), attempts=1)
    async with twins.open() as file:
        for number in (1, 2):
            await file.append(entry(number), CANARY)
        file.mark(dead)
        await file.remark(tried)
    async with twins.open() as file:
        assert (await file.load()).entries == (dead, tried)


async def test_a_fence_drops_a_tenants_older_entries_and_is_remembered(twins: Twins) -> None:
    async with twins.open() as file:
        await file.append(entry(1), CANARY)
        await file.append(entry(2, "bob"), CANARY)
        await file.fence(ALICE, 4)
        await file.append(entry(3, epoch=4), CANARY)
        await file.fence(ALICE, 3)
    async with twins.open() as file:
        contents = await file.load()
        assert contents.entries == (entry(2, "bob"), entry(3, epoch=4))
        assert contents.epochs == {"alice": 4}


async def test_appends_in_flight_together_share_their_fsyncs(tmp_path: Path) -> None:
    async with opened(tmp_path / "brain") as (file, outbox):
        commits = file.writer.commits
        await asyncio.gather(*(outbox.append(entry(number), CANARY) for number in range(1, 1_001)))
        assert file.writer.commits - commits < 50
        assert len((await outbox.load()).entries) == 1_000


async def test_the_pragmas_are_read_back(tmp_path: Path) -> None:
    async with opened(tmp_path / "brain") as (file, _):

        def pragmas(connection: sqlite3.Connection) -> dict[str, object]:
            assert_durable(connection)
            names = ("journal_mode", "synchronous", "secure_delete", "locking_mode")
            return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

        assert await file.writer.run(pragmas) == {
            "journal_mode": "wal",
            "synchronous": 2,
            "secure_delete": 1,
            "locking_mode": "exclusive",
        }


@pytest.mark.parametrize("pragma", ["synchronous = NORMAL", "journal_mode = DELETE"])
def test_a_file_that_would_not_be_durable_is_refused(tmp_path: Path, pragma: str) -> None:
    connection = sqlite3.connect(tmp_path / "x")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA {pragma}")
    with pytest.raises(BrainFileError, match="not be durable"):
        assert_durable(connection)
    connection.close()


async def test_a_second_brain_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path / "brain"):
        with pytest.raises(BrainFileError, match="held by another brain"):
            async with opened(tmp_path / "brain"):
                pass
    async with opened(tmp_path / "brain"):
        pass


async def test_the_brain_keeps_its_name_and_takes_one_it_is_given(tmp_path: Path) -> None:
    async with BrainFile(tmp_path / "brain") as file:
        made = file.brain_id
    async with BrainFile(tmp_path / "brain") as file:
        assert file.brain_id == made
    async with BrainFile(tmp_path / "brain", brain_id="b-7") as file:
        assert file.brain_id == "b-7"


def bytes_on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


async def test_nothing_readable_is_on_the_disk_and_the_key_is_beside_it(tmp_path: Path) -> None:
    data = tmp_path / "brain"
    async with opened(data) as (_, outbox):
        await outbox.append(entry(1), CANARY)
        assert CANARY not in bytes_on_disk(data)
    assert CANARY not in bytes_on_disk(data)
    key_file = default_key_file(data)
    assert key_file.parent == tmp_path
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert (data / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_rotation_encrypts_everything_anew_and_destroys_the_old_key(tmp_path: Path) -> None:
    data, key_file = tmp_path / "brain", default_key_file(tmp_path / "brain")
    async with opened(data) as (file, outbox):
        for number in range(1, 1_201):
            await outbox.append(entry(number), CANARY) if number > 1_190 else outbox.append(entry(number), CANARY)
        digest, old = outbox.digest(b"x"), key_file.read_text()
        first = file.keyring.current
        second = await file.rotate_key()
        assert second != first
        assert file.keyring.names == {second}
        assert outbox.digest(b"x") == digest
    async with opened(data) as (_, outbox):
        assert await outbox.payload(entry(1)) == CANARY
        assert await outbox.payload(entry(1_200)) == CANARY
    key_file.write_text(old)
    with pytest.raises(BrainFileError, match="lacks the keys"):
        async with opened(data):
            pass


async def test_without_its_key_file_the_brain_does_not_start_on_old_data(tmp_path: Path) -> None:
    data = tmp_path / "brain"
    async with opened(data):
        pass
    default_key_file(data).unlink()
    with pytest.raises(BrainFileError, match="is missing"):
        async with opened(data):
            pass


async def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "brain"
    async with opened(data):
        pass
    default_key_file(data).chmod(0o644)
    with pytest.raises(BrainFileError, match="chmod 600"):
        async with opened(data):
            pass


async def test_a_body_moved_to_another_tenant_is_not_opened(tmp_path: Path) -> None:
    data = tmp_path / "brain"
    async with opened(data) as (_, outbox):
        await outbox.append(entry(1), CANARY)
    with sqlite3.connect(data / FILE_NAME) as connection:
        connection.execute("UPDATE outbox_entries SET tenant = 'bob'")
    connection.close()
    async with opened(data) as (_, outbox):
        (moved,) = (await outbox.load()).entries
        assert moved.tenant == BOB
        with pytest.raises(BrainFileError, match="belongs elsewhere"):
            await outbox.payload(moved)


async def test_one_bad_job_does_not_spoil_those_committed_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "brain") as (file, outbox):
        await outbox.append(entry(1), CANARY)
        good = [outbox.append(entry(number), CANARY) for number in (2, 3)]
        bad = outbox.append(entry(1), CANARY)
        good.append(outbox.append(entry(4), CANARY))
        with pytest.raises(sqlite3.IntegrityError):
            await bad
        await asyncio.gather(*good)
        assert [each.sequence for each in (await outbox.load()).entries] == [1, 2, 3, 4]
        assert file.writer.broken is None


def fails(name: str, code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode, error.sqlite_errorname = code, name
    return error


async def test_after_an_io_error_nothing_is_acknowledged_any_more(tmp_path: Path) -> None:
    async with opened(tmp_path / "brain") as (file, outbox):
        await outbox.append(entry(1), CANARY)

        def broken_disk(connection: sqlite3.Connection) -> None:
            raise fails("SQLITE_IOERR_FSYNC", 10 | 4 << 8)

        with pytest.raises(ComponentUnavailableError):
            await file.writer.run(broken_disk)
        for number in (2, 3):
            with pytest.raises(ComponentUnavailableError):
                await outbox.append(entry(number), CANARY)
        assert file.writer.broken is not None
    async with opened(tmp_path / "brain") as (_, outbox):
        assert [each.sequence for each in (await outbox.load()).entries] == [1]


async def test_a_full_disk_refuses_and_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "brain") as (file, outbox):
        await file.writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 40").fetchone())

        async def fill() -> None:
            for number in range(1, 1_000):
                await outbox.append(entry(number), CANARY * 50)

        with pytest.raises(OutboxFullError):
            await fill()
        kept = [each.sequence for each in (await outbox.load()).entries]
        assert kept == list(range(1, len(kept) + 1))
        await file.writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 4000").fetchone())
        await outbox.append(entry(len(kept) + 1), CANARY)
        assert file.writer.broken is None
