"""Outbox entries in the brain's file."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from brain_server.domain.entry import Entry, EntryState, Rejection
from brain_server.domain.settled import Settled
from brain_server.ports import OutboxContents
from brain_server.stores.sqlite.file import BrainFile, entry_place
from brain_server.stores.sqlite.statements import sql
from soma_contract.errors import Code
from soma_contract.tenant import Tenant, admin_tenant

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SqliteOutbox:
    """The outbox's part of an open `BrainFile`."""

    def __init__(self, file: BrainFile) -> None:
        self._file = file
        self._writer = file.writer

    @property
    def brain_id(self) -> str:
        """The name of this brain."""
        return self._file.brain_id

    async def load(self) -> OutboxContents:
        """Return everything that is kept, without payloads."""

        def step(connection: sqlite3.Connection) -> OutboxContents:
            last = connection.execute(sql("last_sequence")).fetchone()
            return OutboxContents(
                entries=tuple(_entry(row) for row in connection.execute(sql("entries"))),
                epochs=dict(connection.execute(sql("epochs")).fetchall()),
                last_sequence=last[0] if last else 0,
                settled=tuple(
                    Settled(tenant, request_id, digest, _EPOCH + us * _MICROSECOND)
                    for tenant, request_id, digest, us in connection.execute(sql("settled"))
                ),
            )

        return await self._writer.run(step)

    def append(self, entry: Entry, payload: bytes) -> asyncio.Future[None]:
        """Begin to keep a new entry; the future is done after the fsync, whether or not anybody waits for it."""

        def step(connection: sqlite3.Connection) -> None:
            keys = self._file.keyring
            connection.execute(
                sql("append"),
                (
                    entry.sequence,
                    entry.tenant.name,
                    entry.entry_id,
                    entry.request_id,
                    entry.operation,
                    json.dumps(entry.touched),
                    _us(entry.origin_at),
                    entry.brain_id,
                    entry.epoch,
                    entry.size,
                    entry.digest,
                    keys.current,
                    keys.seal(payload, entry_place(entry.tenant.name, entry.entry_id)),
                    entry.traceparent,
                ),
            )

        return self._writer.submit(step)

    async def payload(self, entry: Entry) -> bytes:
        """Return the payload of a kept entry; raises KeyError if it is gone."""

        def step(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(sql("body"), (entry.sequence,)).fetchone()
            if row is None:
                return None
            return self._file.keyring.unseal(row[0], row[1], entry_place(entry.tenant.name, entry.entry_id))

        payload = await self._writer.run(step)
        if payload is None:
            raise KeyError(entry.entry_id)
        return payload

    def digest(self, content: bytes) -> bytes:
        """Return 16 bytes that tell contents apart and reveal nothing."""
        return self._file.keyring.digest(content)

    def settle(self, entry: Entry, settled: Settled | None = None) -> None:
        """Drop an entry and keep its request within 100 ms; lost, it is delivered again, which is harmless."""

        def step(connection: sqlite3.Connection) -> None:
            connection.execute(sql("settle"), (entry.sequence,))
            if settled is not None:
                kept = (settled.tenant, settled.request_id, settled.digest, _us(settled.at))
                connection.execute(sql("keep_settled"), kept)

        self._writer.later(step)

    def forget_settled(self, before: datetime) -> None:
        """Let go of requests that were delivered before, within 100 ms."""
        self._writer.later(_doing("forget_settled", (_us(before),)))

    async def noted(self) -> None:
        """Wait until all that was to be done within 100 ms is done."""
        await self._writer.run(lambda _: None)

    def mark(self, entry: Entry) -> None:
        """Write down an entry's state, attempts and rejection within 100 ms."""
        self._writer.later(_doing("mark", _mark(entry)))

    async def remark(self, entry: Entry) -> None:
        """Write down an entry's state, attempts and rejection."""
        await self._writer.run(_doing("mark", _mark(entry)))

    async def discard(self, entry: Entry) -> None:
        """Drop an entry."""
        await self._writer.run(_doing("settle", (entry.sequence,)))

    async def fence(self, tenant: Tenant, epoch: int) -> None:
        """Set a tenant's erasure epoch and drop its entries of earlier ones."""

        def step(connection: sqlite3.Connection) -> None:
            connection.execute(sql("write_epoch"), (tenant.name, epoch))
            connection.execute(sql("fence"), (tenant.name, epoch))
            connection.execute(sql("erase_settled"), (tenant.name,))

        await self._writer.run(step)

    def free_bytes(self) -> int:
        """Return how much space an unprivileged process has left on the file's disk."""
        disk = os.statvfs(self._file.directory)
        return disk.f_bavail * disk.f_frsize


def _doing(name: str, values: tuple[Any, ...]) -> Callable[[sqlite3.Connection], None]:
    # Returns nothing on purpose: a cursor must not leave the writer's thread.
    def step(connection: sqlite3.Connection) -> None:
        connection.execute(sql(name), values)

    return step


def _mark(entry: Entry) -> tuple[int, int, str, int]:
    rejection = json.dumps(asdict(entry.rejection)) if entry.rejection else ""
    return int(entry.state), entry.attempts, rejection, entry.sequence


def _entry(row: tuple[Any, ...]) -> Entry:
    sequence, tenant, entry_id, request_id, operation, touched, origin_us, brain_id, epoch, size, digest = row[:11]
    state, attempts, rejection, traceparent = row[11:]
    kept = json.loads(rejection) if rejection else None
    return Entry(
        sequence=sequence,
        tenant=admin_tenant(tenant, reason="appended on behalf of an authenticated call"),
        entry_id=entry_id,
        request_id=request_id,
        operation=operation,
        touched=tuple(json.loads(touched)),
        origin_at=_EPOCH + origin_us * _MICROSECOND,
        brain_id=brain_id,
        epoch=epoch,
        size=size,
        digest=digest,
        state=EntryState(state),
        attempts=attempts,
        rejection=Rejection(Code(kept["code"]), kept["reason"], kept["message"]) if kept else None,
        traceparent=traceparent,
    )


def _us(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND
