"""The first answer to a request, kept and given again."""

from __future__ import annotations

from dataclasses import replace

import asyncpg

from memory_server.stores.calls import Answer, Known
from memory_server.stores.fingerprints import request_day
from memory_server.stores.postgres.records import dump_memory, load_memory, text_array
from memory_server.stores.requests import Request
from memory_server.stores.standings import Verdict
from soma_contract.coordinate import coordinate_of
from soma_contract.errors import RequestIdReusedError
from soma_contract.memory import Memory, Remember, Written


def repetitions(known: dict[str, asyncpg.Record]) -> Known:
    """Answer requests that came before from the records of their first answers, by request id."""

    def repeated(request: Request) -> Answer | None:
        record = known.get(request.command.request_id)
        return None if record is None else _repeated(request, record)

    return repeated


def _repeated(request: Request, record: asyncpg.Record) -> Answer:
    """The first answer again.  The content of a Remember is in the repeated request itself."""
    if record["request_hash"] != request.fingerprint:
        return RequestIdReusedError(request_id=request.command.request_id)
    memory: Memory | None = None
    if record["snapshot"] is not None:
        memory = load_memory(record["snapshot"])
    elif isinstance(request.command, Remember) and record["memory_id"] is not None:
        given, memory_id = request.command.memory, str(record["memory_id"])
        memory = replace(
            given,
            memory_id=memory_id,
            coordinate=coordinate_of(given.key or memory_id),
            created_at=record["created_at"],
            updated_at=record["updated_at"],
            expires_at=record["expires_at"],
            version=record["version"],
            embedding=None,
        )
    return Written(memory, record["revision"], record["created"], record["changed"], tuple(record["warnings"]))


def record_values(request: Request, verdict: Verdict) -> list[object]:
    """The values of one row of idempotency."""
    memory, command = verdict.memory, request.command
    # A Remember is answered with its own content, unless a later one had been there.
    own = isinstance(command, Remember) and not verdict.warnings
    return [
        request_day(command.request_id),
        command.request_id,
        request.fingerprint,
        memory.memory_id if memory is not None else None,
        verdict.step,
        memory.version if memory is not None else 0,
        verdict.created,
        verdict.changed,
        memory.created_at if memory is not None else None,
        memory.updated_at if memory is not None else None,
        memory.expires_at if memory is not None else None,
        None if memory is None or own else dump_memory(memory),
        text_array(verdict.warnings),
    ]
