"""The verbs *link* and *unlink*, the links of a memory in pages, and those that payloads name."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from memory_server.core.reading import not_found
from memory_server.ports import Clock, GraphStore
from soma_contract.coordinate import parse_coordinate
from soma_contract.errors import PageTokenInvalidError, SomaError
from soma_contract.ids import parse_memory_id
from soma_contract.limits import LIMITS
from soma_contract.links import Link, LinkWritten, MakeLink, Reach, Refer, RemoveLink
from soma_contract.memory import Memory, Origin, Target
from soma_contract.tenant import Tenant

REFERENCES_KEY = "references"
MOST_REFERENCES = 64


@dataclass(frozen=True, slots=True)
class LinkPage:
    """Links of one page, strongest first as of ``at``; ``more`` says whether the list goes on behind them."""

    links: tuple[Link, ...]
    bound: str
    at: datetime
    more: bool

    def token_after(self, count: int) -> str:
        """The token of the page behind the first ``count`` links; empty at the end of the list."""
        if not self.links or (count >= len(self.links) and not self.more):
            return ""
        last = self.links[count - 1]
        parts = [
            self.bound,
            self.at.isoformat(),
            repr(last.strength),
            last.source_id,
            last.target_id,
            last.relation,
        ]
        return urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Linking:
    """Writes links to the truth and lists them."""

    graph: GraphStore
    clock: Clock

    async def write(
        self,
        tenant: Tenant,
        command: MakeLink | RemoveLink,
        *,
        origin: Origin | None = None,
        deadline_s: float | None = None,
    ) -> LinkWritten:
        """Commit one command.  Raises the error it was refused with."""
        (answer,) = await self.graph.write(tenant, [command], origin=origin, deadline_s=deadline_s)
        if isinstance(answer, SomaError):
            raise answer
        return answer

    async def page(self, tenant: Tenant, target: Target, reach: Reach, *, limit: int, page_token: str) -> LinkPage:
        """Return a page of a memory's links, strongest at the time of the first page first.

        Raises MemoryNotFoundError, and PageTokenInvalidError for a token of another tenant or list.
        """
        (memory_id,) = await self.graph.resolve(tenant, [target])
        if memory_id is None:
            raise not_found(target)
        bound = _bound(tenant, memory_id, reach)
        at, after = _opened(page_token, bound) if page_token else (self.clock.now(), None)
        found = await self.graph.page(tenant, memory_id, reach, at=at, after=after, limit=limit + 1)
        return LinkPage(tuple(found[:limit]), bound, at, more=len(found) > limit)

    async def refer(self, tenant: Tenant, memories: Sequence[Memory], *, deadline_s: float | None = None) -> None:
        """Make the links that these stored memories' payloads name, and unmake those they no longer name.

        Safe to repeat; whoever acknowledges a memory calls it first, so that no acknowledged reference is without its
        link.
        """
        named = {memory.memory_id: tuple(references_of(memory)) for memory in memories}
        changed = [memory.memory_id for memory in memories if memory.version > 1 and not named[memory.memory_id]]
        stale = await self.graph.referring(tenant, changed) if changed else set()
        commands = [Refer(memory_id, named[memory_id]) for memory_id in named if named[memory_id] or memory_id in stale]
        if commands:
            await self.graph.write(tenant, commands, deadline_s=deadline_s)


def references_of(memory: Memory) -> Iterator[Target]:
    """The memories that a payload names under ``references``: keys, ids, or objects with one of these.

    A key is looked for in the memory's own namespace unless an object names another.
    """
    if f'"{REFERENCES_KEY}"' not in memory.payload_json:
        return
    held = json.loads(memory.payload_json).get(REFERENCES_KEY)
    for one in (held if isinstance(held, list) else [held])[:MOST_REFERENCES]:
        target = _target(one, memory.namespace)
        if target is not None:
            yield target


def _target(one: object, namespace: str) -> Target | None:
    if isinstance(one, str) and one:
        try:
            return Target(memory_id=parse_memory_id(one))
        except ValueError:
            return Target(namespace=namespace, key=one) if len(one.encode()) <= LIMITS.label_bytes else None
    if not isinstance(one, dict):
        return None
    own = one.get("namespace")
    if isinstance(own, str) and own:
        namespace = own
    if isinstance(one.get("coordinate"), list):
        try:
            return Target(namespace=namespace, coordinate=parse_coordinate(one["coordinate"]))
        except (TypeError, ValueError):
            return None
    named = one.get("memory_id") or one.get("key")
    return _target(named, namespace) if isinstance(named, str) else None


def _bound(tenant: Tenant, memory_id: str, reach: Reach) -> str:
    """Bind a token to its tenant and list, so that it opens no other."""
    named = f"{tenant.name}\0{memory_id}\0{reach!r}"
    return hashlib.blake2b(named.encode(), digest_size=12, person=b"soma-links").hexdigest()


def _opened(token: str, bound: str) -> tuple[datetime, Link]:
    try:
        told, at, strength, source_id, target_id, relation = json.loads(
            urlsafe_b64decode(token + "=" * (-len(token) % 4))
        )
        if told != bound or not isinstance(relation, str):
            raise PageTokenInvalidError
        last = Link(parse_memory_id(source_id), parse_memory_id(target_id), relation, float(strength))
        return datetime.fromisoformat(at), last
    except (ValueError, Base64Error, TypeError, AttributeError):
        raise PageTokenInvalidError from None
