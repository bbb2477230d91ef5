"""The calls of MemoryService that read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_client.answers import read_memory
from soma_client.bound import Bound
from soma_client.naming import Named, filter_in
from soma_client.recalling import RecallStream
from soma_contract.convert.filters import filter_to_pb
from soma_contract.convert.memories import target_to_pb, timestamp
from soma_contract.convert.recalls import query_to_pb
from soma_contract.errors import UnavailableError
from soma_contract.filters import EVERYTHING, Filter
from soma_contract.limits import LIMITS
from soma_contract.memory import Memory, View
from soma_contract.recall import Preset, Recalled, RecallQuery

_VIEWS = {View.BASIC: memory_pb2.MEMORY_VIEW_BASIC, View.FULL: memory_pb2.MEMORY_VIEW_FULL}
_ORDERS = {
    "created": pb.LIST_ORDER_CREATED,
    "updated": pb.LIST_ORDER_UPDATED,
    "key": pb.LIST_ORDER_KEY,
    "importance": pb.LIST_ORDER_IMPORTANCE,
}


class ReadingCalls(Bound):
    """Getting, listing and recalling."""

    async def get(
        self,
        memory: Named | None = None,
        *,
        key: str = "",
        coordinate: str | Sequence[float] | None = None,
        view: View = View.BASIC,
        as_of: datetime | None = None,
        allow_degraded: bool = False,
        timeout_s: float | None = None,
    ) -> Memory:
        """Read one memory; raises MemoryNotFoundError. A version of 0 means it waits in the brain's outbox."""
        target = self._target(memory, key=key, coordinate=coordinate)
        request = pb.GetRequest(
            target=target_to_pb(target),
            view=_VIEWS[view],
            as_of_time=timestamp(as_of),
            allow_degraded=allow_degraded,
        )
        return read_memory((await self._calls.unary(self._memory.Get, request, timeout_s)).memory)

    async def batch_get(
        self, memories: Sequence[Named], *, view: View = View.BASIC, timeout_s: float | None = None
    ) -> tuple[Memory | None, ...]:
        """Read several in the order asked for, None where there is none; asks as often as their size needs."""
        targets = [target_to_pb(self._target(memory)) for memory in memories]
        found: list[Memory | None] = [None] * len(targets)
        wanted = list(range(len(targets)))
        while wanted:
            asked, rest = wanted[: LIMITS.batch_items], wanted[LIMITS.batch_items :]
            request = pb.BatchGetRequest(targets=[targets[place] for place in asked], view=_VIEWS[view])
            answer = await self._calls.unary(self._memory.BatchGet, request, timeout_s)
            for one in answer.found:
                found[asked[one.position]] = read_memory(one.memory)
            omitted = [asked[place] for place in answer.omitted]
            if len(omitted) == len(asked):
                raise UnavailableError("the server answered none of what was asked for")
            wanted = omitted + rest
        return tuple(found)

    async def list(
        self,
        filter: Filter = EVERYTHING,
        *,
        key_prefix: str = "",
        order: str = "created",
        descending: bool = False,
        page_size: int = 0,
        view: View = View.BASIC,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Memory]:
        """Iterate over memories, page by page; ``order`` is created, updated, key or importance."""
        request = pb.ListRequest(
            filter=filter_to_pb(filter_in(filter, self.namespace)),
            key_prefix=key_prefix,
            order=_ORDERS[order],
            descending=descending,
            page_size=page_size,
            view=_VIEWS[view],
        )
        while True:
            page = await self._calls.unary(self._memory.List, request, timeout_s)
            for memory in page.memories:
                yield read_memory(memory)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def history(
        self, memory: str | Memory, *, page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[Memory]:
        """Iterate over the kept versions of a memory, newest first; raises MemoryNotFoundError for one that is gone."""
        memory_id = memory if isinstance(memory, str) else memory.memory_id
        request = pb.HistoryRequest(memory_id=memory_id, page_size=page_size)
        while True:
            page = await self._calls.unary(self._memory.History, request, timeout_s)
            for version in page.versions:
                yield read_memory(version)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def recall(
        self,
        query: str | RecallQuery,
        *,
        filter: Filter | None = None,
        limit: int | None = None,
        min_score: float | None = None,
        min_relevance: float | None = None,
        preset: Preset | None = None,
        token_budget: int | None = None,
        explain: bool | None = None,
        timeout_s: float | None = None,
    ) -> RecallStream:
        """Find memories like a text or a query, best first; arguments that are given replace the query's own."""
        given = {
            "filter": filter,
            "limit": limit,
            "min_score": min_score,
            "min_relevance": min_relevance,
            "preset": preset,
            "token_budget": token_budget,
            "explain": explain,
        }
        asked = asked_for(query, self.namespace, given)
        request = query_to_pb(asked)
        request.together = True
        return RecallStream(self._calls.stream(self._memory.Recall, request, timeout_s))

    async def recall_all(
        self,
        query: str | RecallQuery,
        *,
        filter: Filter | None = None,
        limit: int | None = None,
        min_score: float | None = None,
        min_relevance: float | None = None,
        preset: Preset | None = None,
        token_budget: int | None = None,
        explain: bool | None = None,
        timeout_s: float | None = None,
    ) -> Recalled:
        """The whole answer of ``recall`` at once."""
        stream = self.recall(
            query,
            filter=filter,
            limit=limit,
            min_score=min_score,
            min_relevance=min_relevance,
            preset=preset,
            token_budget=token_budget,
            explain=explain,
            timeout_s=timeout_s,
        )
        return await stream.all()


def asked_for(
    query: str | RecallQuery, namespace: str, given: Mapping[str, object] = MappingProxyType({})
) -> RecallQuery:
    """The query with what was given in place of its own, confined to the namespace unless it names one."""
    base = RecallQuery(text=query) if isinstance(query, str) else query
    changes = {name: value for name, value in given.items() if value is not None}
    asked = replace(base, **changes)  # type: ignore[arg-type] # the names are RecallQuery's own
    return replace(asked, filter=filter_in(asked.filter, namespace))
