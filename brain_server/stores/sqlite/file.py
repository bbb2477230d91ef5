"""Opening the brain's file: lock, key file, pragmas read back, schema, and the thread that writes."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

from brain_server.stores.sqlite.errors import BrainFileError
from brain_server.stores.sqlite.keyring import Keyring, default_key_file, sync_directory
from brain_server.stores.sqlite.lock import FileLock
from brain_server.stores.sqlite.statements import sql
from brain_server.stores.sqlite.writer import Writer

FILE_NAME = "brain.sqlite3"
_LAYOUT = "3"
_FULL = 2


class BrainFile:
    """The open file of one brain, an async context manager; raises BrainFileError if it cannot be used.

    `brain_id` names this brain for good: given once or made once, then read from the file.
    """

    keyring: Keyring
    writer: Writer
    brain_id: str

    def __init__(self, data_dir: Path, *, key_file: Path | None = None, brain_id: str = "") -> None:
        self.directory = data_dir
        self.path = data_dir / FILE_NAME
        self._key_file = key_file or default_key_file(data_dir)
        self._wanted_brain_id = brain_id
        self._lock: FileLock | None = None

    async def __aenter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = FileLock(self.directory / f"{FILE_NAME}.lock")
        try:
            self.writer = Writer(self._open)
            await self.writer.start()
        except BaseException:
            self._lock.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.writer.close()
        assert self._lock is not None
        self._lock.release()

    async def rotate_key(self) -> str:
        """Encrypt everything with a new key, destroy the old ones, and return the new one's name."""

        def begin(connection: sqlite3.Connection) -> str:
            name = self.keyring.add_key()
            connection.execute(sql("use_key"), (name,))
            return name

        def finish(connection: sqlite3.Connection) -> None:
            connection.execute(sql("retire_keys"), (self.keyring.current,))

        name = await self.writer.run(begin)
        while await self.writer.run(self._rekey_some):
            pass
        await self.writer.run(finish)
        # Old bodies may linger in the write-ahead log until it is folded in.
        await self.writer.run(lambda connection: self.keyring.retire_others())
        return name

    def _rekey_some(self, connection: sqlite3.Connection, limit: int = 500) -> int:
        keys, current = self.keyring, self.keyring.current
        entries = connection.execute(sql("entries_of_other_keys"), (current, limit)).fetchall()
        for sequence, tenant, entry_id, key_id, body in entries:
            place = entry_place(tenant, entry_id)
            connection.execute(
                sql("rekey_entry"), (current, keys.seal(keys.unseal(key_id, body, place), place), sequence)
            )
        items = connection.execute(sql("items_of_other_keys"), (current, limit)).fetchall()
        for tenant, session, slot, key_id, body in items:
            place = item_place(tenant, session, slot)
            sealed = keys.seal(keys.unseal(key_id, body, place), place)
            connection.execute(sql("rekey_item"), (current, sealed, tenant, session, slot))
        return len(entries) + len(items)

    def _open(self) -> sqlite3.Connection:
        is_new = not self.path.exists()
        # Statements are few and fixed; all of them stay prepared.
        connection = sqlite3.connect(self.path, isolation_level=None, cached_statements=128)
        try:
            self.path.chmod(0o600)
            # One process, one connection: the index of the log stays in memory and no other program gets in between.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            assert_durable(connection)
            # What a crash left in the log is read back from memory, not from the disk, if the kernel still holds it;
            # folding it in makes it durable before anything is built on it.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.executescript(f"BEGIN IMMEDIATE; {sql('schema')} COMMIT;")
            self._check_layout(connection)
            self.keyring = self._open_keyring(connection)
            self.brain_id = self._name_brain(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise BrainFileError(f"{self.path} cannot be used: {error}") from error
        except BaseException:
            connection.close()
            raise
        if is_new:
            sync_directory(self.directory)
        return connection

    def _check_layout(self, connection: sqlite3.Connection) -> None:
        found = connection.execute(sql("read_fact"), ("layout",)).fetchone()
        if found is None:
            connection.execute(sql("write_fact"), ("layout", _LAYOUT))
        elif found[0] == "2":
            connection.execute(sql("trace_entries"))
            connection.execute(sql("write_fact"), ("layout", _LAYOUT))
        elif found[0] != _LAYOUT:
            raise BrainFileError(f"{self.path} has layout {found[0]}, this brain reads {_LAYOUT}")

    def _open_keyring(self, connection: sqlite3.Connection) -> Keyring:
        used = {str(name) for (name,) in connection.execute(sql("keys_used"))}
        keyring = Keyring(self._key_file, may_create=not used)
        if missing := used - keyring.names:
            raise BrainFileError(f"the key file {self._key_file} lacks the keys {', '.join(sorted(missing))}")
        connection.execute(sql("use_key"), (keyring.current,))
        return keyring

    def _name_brain(self, connection: sqlite3.Connection) -> str:
        found = connection.execute(sql("read_fact"), ("brain_id",)).fetchone()
        name = self._wanted_brain_id or (found[0] if found else f"brain-{secrets.token_hex(8)}")
        connection.execute(sql("write_fact"), ("brain_id", name))
        return str(name)


def assert_durable(connection: sqlite3.Connection) -> None:
    """Raise BrainFileError unless a commit on this connection survives a power cut."""
    journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    if (journal, synchronous) != ("wal", _FULL):
        raise BrainFileError(
            f"SQLite keeps journal_mode={journal} and synchronous={synchronous} here; a commit would not be durable"
        )


def entry_place(tenant: str, entry_id: str) -> str:
    """Return what an entry's body is bound to."""
    return f"outbox|{tenant}|{entry_id}"


def item_place(tenant: str, session: str, slot: int) -> str:
    """Return what an item's body is bound to."""
    return f"wm|{tenant}|{slot}|{session}"
