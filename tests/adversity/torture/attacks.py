"""Ways to reach for another tenant's memories, as a holder of a valid key of its own would try them.

Each attack knows of its victim what can be guessed or seen over a shoulder: names, keys, memory ids, page tokens,
request ids, sessions.  None sends a canary, so a canary that comes back has leaked.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from soma.batch.v1 import batch_service_pb2 as batch_pb
from soma.batch.v1 import batch_service_pb2_grpc as batch_rpc
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as graph_pb
from soma.graph.v1 import graph_service_pb2_grpc as graph_rpc
from soma.memory.v1 import filter_pb2, memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma.memory.v1 import memory_service_pb2_grpc as rpc
from soma.memory.v1 import session_service_pb2 as session_pb
from soma.memory.v1 import session_service_pb2_grpc as session_rpc
from soma.memory.v1 import watch_service_pb2 as watch_pb
from soma.memory.v1 import watch_service_pb2_grpc as watch_rpc
from soma.memory.v1 import working_memory_service_pb2 as working_pb
from soma.memory.v1 import working_memory_service_pb2_grpc as working_rpc
from tests.adversity.torture.agents import named
from tests.adversity.torture.scene import Inhabitant

DEADLINE_S = 20.0
SHARED_WORDS = "the vault of the harbour master opens at midnight"
"""Every tenant's memories say this, each with its own canary."""


@dataclass(slots=True)
class Home:
    """A tenant, and what of it an attacker may have got hold of."""

    inhabitant: Inhabitant
    memory_ids: list[str]
    keys: list[str]
    request_ids: list[str]
    page_token: str
    session: str

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What its own calls carry."""
        return self.inhabitant.metadata


@dataclass(frozen=True, slots=True)
class Blow:
    """One attack about to be made."""

    channel: grpc.aio.Channel
    attacker: Home
    victim: Home
    chosen: random.Random

    @property
    def memory_id(self) -> str:
        """A memory of the victim."""
        return self.chosen.choice(self.victim.memory_ids)

    @property
    def target(self) -> common.MemoryTarget:
        """A memory of the victim, by its id."""
        return common.MemoryTarget(memory_id=self.memory_id)

    @property
    def injection(self) -> str:
        """A string that would mean something in a filter expression or a query, were it not quoted."""
        name = self.victim.inhabitant.name
        return self.chosen.choice(
            (
                f'" or tenant == "{name}',
                f"' OR tenant = '{name}' --",
                f'x"] or tenant in ["{name}',
                f"{name}|{self.memory_id}",
                f"'; SELECT set_config('app.tenant','{name}',true); --",
                f'\\" or tenant == \\"{name}',
                "%",
                "') || true || ('",
            )
        )

    def call(self, method: Callable[..., Any], request: Any, metadata: Any = None) -> Any:
        """Call as the attacker, or with other metadata."""
        sent = self.attacker.metadata if metadata is None else metadata
        return method(request, metadata=sent, timeout=DEADLINE_S)


async def _read(blow: Blow) -> Any:
    return await blow.call(rpc.MemoryServiceStub(blow.channel).Get, pb.GetRequest(target=blow.target))


async def _read_key(blow: Blow) -> Any:
    request = pb.GetRequest(target=named(blow.chosen.choice(blow.victim.keys)))
    return await blow.call(rpc.MemoryServiceStub(blow.channel).Get, request)


async def _read_many(blow: Blow) -> Any:
    targets = [common.MemoryTarget(memory_id=one) for one in (*blow.victim.memory_ids, blow.attacker.memory_ids[0])]
    return await blow.call(rpc.MemoryServiceStub(blow.channel).BatchGet, pb.BatchGetRequest(targets=targets))


async def _recall(blow: Blow) -> Any:
    request = pb.RecallRequest(text=SHARED_WORDS, limit=blow.chosen.choice((5, 20, 200)))
    return await _all(blow.call(rpc.MemoryServiceStub(blow.channel).Recall, request))


async def _recall_like(blow: Blow) -> Any:
    request = pb.RecallRequest(like=blow.target, recheck_memory_ids=blow.victim.memory_ids)
    return await _all(blow.call(rpc.MemoryServiceStub(blow.channel).Recall, request))


async def _recall_injected(blow: Blow) -> Any:
    field = blow.chosen.choice(("memory_id", "key", "persona_id", "actor", "session_id", "tags_any", "tags_all"))
    condition = filter_pb2.Filter()
    getattr(condition, field).values.append(blow.injection)
    if blow.chosen.random() < 0.3:
        path = [blow.injection]
        value = filter_pb2.ScalarValue(string_value=blow.injection)
        comparison = filter_pb2.PAYLOAD_COMPARISON_NE
        condition = filter_pb2.Filter(
            payload=filter_pb2.PayloadCondition(path=path, comparison=comparison, values=[value])
        )
    request = pb.RecallRequest(text=SHARED_WORDS, limit=50, filter=condition)
    return await _all(blow.call(rpc.MemoryServiceStub(blow.channel).Recall, request))


async def _list_injected(blow: Blow) -> Any:
    request = pb.ListRequest(key_prefix=blow.injection, page_size=1_000)
    return await blow.call(rpc.MemoryServiceStub(blow.channel).List, request)


async def _list_with_token(blow: Blow) -> Any:
    request = pb.ListRequest(page_size=1, page_token=blow.victim.page_token)
    return await blow.call(rpc.MemoryServiceStub(blow.channel).List, request)


async def _history(blow: Blow) -> Any:
    request = pb.HistoryRequest(memory_id=blow.memory_id)
    return await blow.call(rpc.MemoryServiceStub(blow.channel).History, request)


async def _spoofed(blow: Blow) -> Any:
    metadata = [blow.attacker.metadata[0], ("soma-tenant", blow.victim.inhabitant.name)]
    return await blow.call(rpc.MemoryServiceStub(blow.channel).Get, pb.GetRequest(target=blow.target), metadata)


async def _doubled(blow: Blow) -> Any:
    metadata = [*blow.attacker.metadata, ("soma-tenant", blow.victim.inhabitant.name)]
    blow.chosen.shuffle(metadata)
    return await blow.call(rpc.MemoryServiceStub(blow.channel).List, pb.ListRequest(), metadata)


async def _forged(blow: Blow) -> Any:
    bearer = blow.victim.metadata[0][1]
    spoiled = bearer[:-1] + ("a" if bearer[-1] != "a" else "b")
    metadata = [("authorization", spoiled), ("soma-tenant", blow.victim.inhabitant.name)]
    return await blow.call(rpc.MemoryServiceStub(blow.channel).List, pb.ListRequest(), metadata)


async def _forget(blow: Blow) -> Any:
    return await blow.call(rpc.MemoryServiceStub(blow.channel).Forget, pb.ForgetRequest(target=blow.target))


async def _update(blow: Blow) -> Any:
    request = pb.UpdateRequest(
        target=blow.target, memory=memory_pb2.Memory(text="taken over"), update_mask=FieldMask(paths=["text"])
    )
    return await blow.call(rpc.MemoryServiceStub(blow.channel).Update, request)


async def _same_request(blow: Blow) -> Any:
    request_id = blow.chosen.choice(blow.victim.request_ids)
    memory = memory_pb2.Memory(key="repeated", text=f"by {blow.attacker.inhabitant.name}")
    request = pb.RememberRequest(memory=memory, request_id=request_id)
    return await blow.call(rpc.MemoryServiceStub(blow.channel).Remember, request)


async def _link(blow: Blow) -> Any:
    own = common.MemoryTarget(memory_id=blow.attacker.memory_ids[0])
    ends = [own, blow.target]
    blow.chosen.shuffle(ends)
    request = graph_pb.LinkRequest(source=ends[0], target=ends[1], relation="related")
    return await blow.call(graph_rpc.GraphServiceStub(blow.channel).Link, request)


async def _links(blow: Blow) -> Any:
    return await blow.call(
        graph_rpc.GraphServiceStub(blow.channel).GetLinks, graph_pb.GetLinksRequest(target=blow.target)
    )


async def _neighbours(blow: Blow) -> Any:
    request = graph_pb.NeighborsRequest(target=blow.target, k_hop=2, limit=50, include_memories=True)
    return await _all(blow.call(graph_rpc.GraphServiceStub(blow.channel).Neighbors, request))


async def _path(blow: Blow) -> Any:
    source, target = blow.chosen.sample(blow.victim.memory_ids, 2)
    request = graph_pb.FindPathRequest(
        source=common.MemoryTarget(memory_id=source), target=common.MemoryTarget(memory_id=target)
    )
    return await _all(blow.call(graph_rpc.GraphServiceStub(blow.channel).FindPath, request))


async def _session(blow: Blow) -> Any:
    # Saved sessions are between brains and the memory server; items are what the brain itself answers.
    request = session_pb.LoadSessionRequest(session_id=blow.victim.session)
    return await blow.call(session_rpc.SessionServiceStub(blow.channel).LoadSession, request)


async def _items(blow: Blow) -> Any:
    request = working_pb.ListItemsRequest(session_id=blow.victim.session)
    return await blow.call(working_rpc.WorkingMemoryServiceStub(blow.channel).ListItems, request)


async def _watch(blow: Blow) -> Any:
    call = blow.call(watch_rpc.WatchServiceStub(blow.channel).Watch, watch_pb.WatchRequest(after_revision=0))
    seen = []
    async for frame in call:
        seen.append(frame)
        if len(seen) == 5:
            call.cancel()
            break
    return seen


async def _export(blow: Blow) -> Any:
    request = batch_pb.ExportRecordsRequest(include_links=True)
    call = blow.call(batch_rpc.BatchServiceStub(blow.channel).ExportRecords, request)
    return await _all(call)


ATTACKS: dict[str, Callable[[Blow], Any]] = {
    "reading by id": _read,
    "reading by key": _read_key,
    "reading many": _read_many,
    "recalling the same words": _recall,
    "recalling like another's memory": _recall_like,
    "injecting into a recall": _recall_injected,
    "injecting into a list": _list_injected,
    "continuing another's list": _list_with_token,
    "reading another's history": _history,
    "naming another tenant": _spoofed,
    "naming two tenants": _doubled,
    "forging a key": _forged,
    "forgetting another's memory": _forget,
    "changing another's memory": _update,
    "repeating another's request": _same_request,
    "linking to another's memory": _link,
    "reading another's links": _links,
    "walking another's links": _neighbours,
    "finding a way through another's": _path,
    "loading another's session": _session,
    "reading another's session": _items,
    "watching": _watch,
    "exporting": _export,
}


async def _all(call: AsyncIterator[Any]) -> list[Any]:
    return [frame async for frame in call]
