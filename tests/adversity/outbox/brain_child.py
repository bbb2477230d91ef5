"""A brain's outbox and working memory in a process of their own, to be killed: says what it has, then acknowledges.

    python brain_child.py DIRECTORY [--unsafe]

Lines on standard output, each written after what it tells is durable:
    have {"writes": [...], "sequence": n, "items": [...]}   what the file held at start
    w REQUEST                                               a write was acknowledged
    o SEQUENCE ITEM EVICTED                                 an observation was acknowledged
    refused REASON                                          a write was refused
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from brain_server.core.working_memory import WorkingMemory
from brain_server.domain.entry import Draft
from brain_server.domain.item import ItemKind, Observation
from brain_server.domain.salience import WorkingRules
from brain_server.gateway.outbox import Outbox, OutboxBounds
from brain_server.stores.sqlite import file as brain_file
from brain_server.stores.sqlite.entries import SqliteOutbox
from brain_server.stores.sqlite.items import SqliteSessions
from soma_contract.errors import SessionNotFoundError, SomaError
from soma_contract.tenant import admin_tenant

WRITERS = 6
TENANT = admin_tenant("alice", reason="tests")


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def payload_of(request_id: str) -> bytes:
    return f'{{"request": "{request_id}", "filling": "{"x" * 300}"}}'.encode()


async def write_for_ever(outbox: Outbox, run: str, writer: int) -> None:
    number = 0
    while True:
        number += 1
        request = f"{run}-{writer}-{number}"
        draft = Draft(request, request, "remember", (f"m{writer}",), payload_of(request), datetime.now(UTC))
        try:
            await outbox.append(TENANT, draft).wait()
        except SomaError as error:
            say(f"refused {error.reason}")
            await asyncio.sleep(0.01)
        else:
            say(f"w {request}")


async def observe_for_ever(working: WorkingMemory, sequence: int) -> None:
    while True:
        sequence += 1
        vector = np.random.default_rng(sequence).standard_normal(32).astype(np.float32)
        observation = Observation(ItemKind.THOUGHT, f"thought {sequence}", vector, 0.9, sequence=sequence)
        try:
            (answer,) = await working.observe(TENANT, "s", [observation])
        except SomaError as error:
            say(f"refused {error.reason}")
            sequence -= 1
            await asyncio.sleep(0.01)
        else:
            say(f"o {sequence} {answer.item_id or '-'} {answer.evicted or '-'}")


async def main(directory: Path) -> None:
    async with brain_file.BrainFile(directory) as file:
        outbox = Outbox(SqliteOutbox(file), bounds=OutboxBounds(free_bytes=0, cached_bytes=0))
        await outbox.load()
        working = WorkingMemory(SqliteSessions(file), rules=WorkingRules(capacity=32))
        await working.load()
        entries = list(outbox.pending(TENANT))
        for entry in random.sample(entries, min(20, len(entries))):
            if await outbox.payload(entry) != payload_of(entry.request_id):
                raise AssertionError(f"the payload of {entry.request_id} changed")
        try:
            items = [item.item_id for item in await working.items(TENANT, "s")]
        except SessionNotFoundError:
            items = []
        sequence = await working.last_sequence(TENANT, "s")
        integrity = await file.writer.run(lambda connection: connection.execute("PRAGMA quick_check").fetchone()[0])
        if integrity != "ok":
            raise AssertionError(f"the file is damaged: {integrity}")
        have = {"writes": [entry.request_id for entry in entries], "sequence": sequence, "items": items}
        say("have " + json.dumps(have))
        for entry in entries:
            outbox.settle(entry, delivered=True)
        run = secrets.token_hex(3)
        async with asyncio.TaskGroup() as tasks:
            for writer in range(WRITERS):
                tasks.create_task(write_for_ever(outbox, run, writer))
            tasks.create_task(observe_for_ever(working, sequence))


def make_unsafe(connection: sqlite3.Connection) -> None:
    """What must not happen: a file that does not wait for the disk. The power-cut test has to notice."""
    connection.execute("PRAGMA synchronous = NORMAL")


if __name__ == "__main__":
    if "--unsafe" in sys.argv:
        brain_file.assert_durable = make_unsafe
    asyncio.run(main(Path(sys.argv[1])))
