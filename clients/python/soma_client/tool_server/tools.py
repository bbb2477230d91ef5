"""The tools, and what they tell a model about themselves."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from rpckit.metadata import new_request_id
from soma.memory.v1 import context_service_pb2 as context_pb
from soma.memory.v1 import context_service_pb2_grpc as context_rpc
from soma_client.client import SomaClient
from soma_client.naming import target_of
from soma_client.small_door import conditions, save_memory
from soma_client.tool_server.answers import (
    QUEUED,
    ContextAnswer,
    ForgottenAnswer,
    LoadedAnswer,
    NeighborAnswer,
    NeighborsAnswer,
    SavedAnswer,
    SearchAnswer,
    memory_answer,
    neighbor_answer,
    saved_answer,
)
from soma_client.tool_server.callers import Callers
from soma_client.tool_server.refusals import telling
from soma_contract.errors import FieldViolationError, MemoryNotFoundError
from soma_contract.memory import Durability
from soma_contract.recall import LegState

INCOMPLETE = "A part of the memory could not be searched just now, so there may be more to find: {causes}."

Ctx = Context[Any, Any]
Key = Annotated[
    str,
    Field(
        description="A stable dotted name such as user.preferences.format; at most 256 bytes. The same fact always "
        "gets the same key."
    ),
]
OptionalKey = Annotated[str, Field(description="The key it was saved under. Give this or memory_id.")]
OptionalId = Annotated[str, Field(description="The memory_id that another tool returned. Give this or key.")]
Type = Annotated[str, Field(description="A type name such as UserPreference, Decision or Task.")]


class MemoryTools:
    """Six tools over a client; each method is one."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def memory_save(
        self,
        ctx: Ctx,
        key: Key,
        payload: Annotated[
            str | dict[str, Any],
            Field(
                description="What to remember: one self-contained sentence, or an object whose `text` is such a "
                "sentence and whose other fields are details. Name people and dates in full: it is read later, without "
                "this conversation."
            ),
        ],
        type: Type = "",
        ttl_s: Annotated[
            float | None, Field(description="Seconds until it is forgotten by itself; leave out to keep it.", gt=0)
        ] = None,
        relevance: Annotated[
            float | None, Field(description="How relevant it is for the future, from 0 to 1.", ge=0, le=1)
        ] = None,
    ) -> SavedAnswer:
        """Remember something for good, across conversations and restarts.

        Use it when the user states a preference, a fact about themselves or their work, a decision, or asks you to
        remember. Saving again under the same key replaces what was there, so first look with memory_search whether
        there is a key for it already. Do not save secrets, or what matters for this conversation only.
        """
        with telling():
            client = self._callers.of(ctx)
            stored = await save_memory(client, key, payload, type=type, ttl_s=ttl_s, relevance=relevance)
            return saved_answer(stored)

    async def memory_load(self, ctx: Ctx, key: Key) -> LoadedAnswer:
        """Read exactly what was saved under a key you know.

        Use memory_search instead when you do not know the key.
        """
        with telling():
            try:
                memory = await self._callers.of(ctx).get(key=key)
            except MemoryNotFoundError:
                note = f"Nothing is stored under {key!r}. memory_search finds memories by what they say."
                return LoadedAnswer(found=False, note=note)
            return LoadedAnswer(found=True, memory=memory_answer(memory))

    async def memory_search(
        self,
        ctx: Ctx,
        text: Annotated[
            str,
            Field(description="What to look for: a question or a sentence in natural language, with names and dates."),
        ] = "",
        key_prefix: Annotated[
            str, Field(description="Only memories whose key starts with this; without text they are listed by key.")
        ] = "",
        type: Type = "",
        min_relevance: Annotated[
            float | None, Field(description="Only memories at least so relevant.", ge=0, le=1)
        ] = None,
        limit: Annotated[int, Field(description="At most so many memories.", ge=1, le=100)] = 10,
    ) -> SearchAnswer:
        """Find memories by meaning, best first, or list them by key prefix.

        Use it before answering anything that earlier conversations may have settled: preferences, facts about people,
        decisions, what was promised. An empty list with complete=true means that nothing is known; with
        complete=false it means that part of the memory could not be searched.
        """
        with telling():
            client = self._callers.of(ctx)
            if not text and not key_prefix:
                raise FieldViolationError.at("text", "give a text, a key_prefix, or both")
            condition = conditions(key_prefix, type, min_relevance)
            if text:
                found = await client.recall_all(text, filter=condition, limit=limit)
                answer = SearchAnswer(
                    memories=[memory_answer(hit.memory, hit.score) for hit in found.hits],
                    complete=not found.summary.degraded,
                )
                if found.summary.degraded:
                    away = (LegState.DROPPED, LegState.DEGRADED)
                    causes = sorted(f"{leg.leg} {leg.cause}" for leg in found.summary.legs if leg.state in away)
                    answer["note"] = INCOMPLETE.format(causes=", ".join(causes))
                return answer
            return await _listed(client, condition, limit)

    async def memory_forget(self, ctx: Ctx, key: OptionalKey = "", memory_id: OptionalId = "") -> ForgottenAnswer:
        """Delete one memory and its links for ever.

        Use it only when the user asks to forget something, or when a memory is wrong and nothing replaces it; to
        correct one, save under the same key instead. First find it with memory_search and be sure that it is the one.
        """
        with telling():
            target = target_of(memory_id or None, key=key)
            forgotten = await self._callers.of(ctx).forget(target)
            if forgotten.durability is Durability.QUEUED:
                return ForgottenAnswer(forgotten=True, note=QUEUED)
            return ForgottenAnswer(forgotten=True)

    async def memory_context(
        self,
        ctx: Ctx,
        conversation: Annotated[
            str, Field(description="The question or the last turns of the conversation; the end counts most.")
        ],
        token_budget: Annotated[
            int, Field(description="How long the text may be, in tokens.", ge=64, le=100_000)
        ] = 2000,
    ) -> ContextAnswer:
        """Get everything that is known about a topic as one text to read, with citations, within a token budget.

        Use it once at the start of a task or conversation; use memory_search for single questions later on. Citations
        such as [m:0198c5…] are memory ids.
        """
        with telling():
            client = self._callers.of(ctx)
            request = context_pb.AssembleRequest(
                text=conversation, token_budget=token_budget, request_id=new_request_id()
            )
            return await _assembled(client, request)

    async def graph_neighbors(
        self,
        ctx: Ctx,
        key: OptionalKey = "",
        memory_id: OptionalId = "",
        hops: Annotated[int, Field(description="How many links away.", ge=1, le=3)] = 1,
        relations: Annotated[
            list[str] | None,
            Field(
                description="Only links that mean this, such as references, derived_from, supersedes or contradicts."
            ),
        ] = None,
        limit: Annotated[int, Field(description="At most so many memories.", ge=1, le=100)] = 20,
    ) -> NeighborsAnswer:
        """Find the memories that are linked with one, nearest and strongest first.

        Use it after memory_search, to see what a memory rests on, what contradicts or supersedes it, and what was used
        together with it.
        """
        with telling():
            target = target_of(memory_id or None, key=key)
            neighbors: list[NeighborAnswer] = []
            spent = ""
            async for frame in self._callers.of(ctx).neighbors(
                target, k_hop=hops, relations=relations or (), limit=limit, include_memories=True
            ):
                neighbors += [neighbor_answer(near) for near in frame.neighbors.neighbors]
                spent = frame.summary.spent if frame.summary.partial else ""
            answer = NeighborsAnswer(neighbors=neighbors, complete=not spent)
            if spent:
                answer["note"] = INCOMPLETE.format(causes=f"the budget of {spent} was spent")
            return answer


async def _listed(client: SomaClient, condition: Any, limit: int) -> SearchAnswer:
    found = []
    async for memory in client.list(condition, order="key", page_size=limit + 1):
        found.append(memory_answer(memory))
        if len(found) > limit:
            note = f"There are more than these {limit}; ask with a longer key_prefix or a larger limit."
            return SearchAnswer(memories=found[:limit], complete=True, note=note)
    return SearchAnswer(memories=found, complete=True)


async def _assembled(client: SomaClient, request: context_pb.AssembleRequest) -> ContextAnswer:
    sections: list[str] = []
    summary = context_pb.AssembleSummary()
    stub = context_rpc.ContextServiceStub(client._calls.channel)
    async for frame in client._calls.stream(stub.Assemble, request, request_id=request.request_id):
        if frame.HasField("section") and frame.section.text:
            sections.append(f"## {frame.section.name}\n{frame.section.text}")
        if frame.HasField("summary"):
            summary = frame.summary
    answer = ContextAnswer(context="\n\n".join(sections), tokens=summary.tokens, complete=not summary.degraded)
    if summary.degraded:
        causes = ", ".join(sorted(summary.failed_categories)) or "some of its ways were away or late"
        answer["note"] = INCOMPLETE.format(causes=causes)
    elif not sections:
        answer["note"] = "Nothing is known about this yet."
    return answer
