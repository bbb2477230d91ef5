"""What is kept of a link command under its request id: a hash of what was asked, and the answer."""

from __future__ import annotations

import hashlib
from datetime import datetime

import orjson

from memory_server.stores.link_deciding import LinkVerdict
from soma_contract.links import Link, LinkCommand, LinkWritten, MakeLink, Refer, RemoveLink, UseTogether
from soma_contract.memory import Target


def link_request_hash(command: LinkCommand) -> bytes:
    """16 bytes that are equal for the same request."""
    parts: list[object]
    match command:
        case MakeLink():
            parts = [
                "link",
                _named(command.source),
                _named(command.target),
                command.relation,
                command.strength,
                command.metadata_json,
                command.valid_from,
                command.valid_until,
                command.if_match,
            ]
        case RemoveLink():
            ends = _named(command.source), _named(command.target)
            parts = ["unlink", *ends, command.relation, command.if_match, command.allow_missing]
        case UseTogether():
            parts = ["use", command.memory_ids, command.plan_id]
        case Refer():
            parts = ["refer", command.memory_id, [_named(target) for target in command.targets]]
    return hashlib.blake2b(orjson.dumps(parts), digest_size=16, person=b"soma-link").digest()


def dump_answer(verdict: LinkVerdict) -> str:
    """Write an answer down for a later repetition of the same request."""
    link = verdict.link
    values = None
    if link is not None:
        values = [
            link.source_id,
            link.target_id,
            link.relation,
            link.strength,
            link.metadata_json,
            link.valid_from,
            link.valid_until,
            link.version,
            link.created_at,
            link.updated_at,
        ]
    return orjson.dumps([verdict.unknown, values]).decode()


def load_answer(text: str, *, revision: int, created: bool, changed: bool) -> LinkWritten:
    """Read what :func:`dump_answer` wrote."""
    unknown, values = orjson.loads(text)
    link = None
    if values is not None:
        for place in (5, 6, 8, 9):
            values[place] = datetime.fromisoformat(values[place]) if values[place] else None
        link = Link(*values)
    return LinkWritten(link, revision, created, changed, unknown, repeated=True)


def _named(target: Target) -> list[object]:
    if target.memory_id:
        return [target.memory_id, "", "", None]
    return ["", target.namespace, target.key, target.coordinate]
