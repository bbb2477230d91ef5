"""ContextService: contexts out of working and long-term memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from brain_server.core.assembling import Assembled, Assembling, Wanted
from brain_server.domain.composing import Section
from brain_server.domain.persona import Category
from brain_server.ports import PersonasSource
from brain_server.servicers.working_memory import session_of
from rpckit.call import current_call, current_tenant
from soma.memory.v1 import context_service_pb2 as pb
from soma.memory.v1 import context_service_pb2_grpc as rpc
from soma.memory.v1 import memory_service_pb2 as memory_pb
from soma_contract.convert.checks import Checks
from soma_contract.convert.filters import filter_from_pb
from soma_contract.convert.memories import REQUEST_ID_BYTES
from soma_contract.convert.recalls import summary_to_pb
from soma_contract.limits import LIMITS
from soma_contract.recall import Preset, Summary

MOST_CATEGORIES = 32
DEFAULT_BUDGET = 2_000
_BUDGET = (64, 100_000)
_PRESETS = {memory_pb.RecallPreset.Value(f"RECALL_PRESET_{preset.name}"): preset for preset in Preset}


@dataclass(frozen=True, slots=True)
class ContextServicer(rpc.ContextServiceServicer):
    """What agents paste into their prompts."""

    assembling: Assembling
    personas: PersonasSource

    async def Assemble(  # type: ignore[override] # a coroutine that writes is a stream handler too
        self, request: pb.AssembleRequest, context: Any
    ) -> None:
        checks = Checks(current_call().namespace)
        wanted = self._wanted(request, checks)
        checks.done()

        async def emit(section: Section) -> None:
            await context.write(pb.AssembleResponse(section=section_to_pb(section)))

        assembled = await self.assembling.assemble(
            current_tenant(), wanted, emit, deadline_s=current_call().remaining_s()
        )
        await context.write(pb.AssembleResponse(summary=assembled_to_pb(assembled)))

    def _wanted(self, request: pb.AssembleRequest, checks: Checks) -> Wanted:
        call = current_call()
        if not request.text.strip():
            checks.fail("text", "give the conversation so far, or the question")
        persona_id = checks.text("persona_id", request.persona_id) or call.persona
        low, high = _BUDGET
        if request.token_budget and not low <= request.token_budget <= high:
            checks.fail("token_budget", f"must be from {low} to {high}; 0 is {DEFAULT_BUDGET}")
        preset = Preset.BALANCED if request.preset == 0 else _PRESETS.get(request.preset)
        if preset is None:
            checks.fail("preset", "is not a known preset")
        session_id = call.session
        if request.session_id:
            session_id = session_of(request.session_id, call, checks)
        return Wanted(
            text=checks.text("text", request.text, LIMITS.text_bytes),
            categories=categories_from_pb(request, checks)
            or self.personas.current().categories(current_tenant().name, persona_id),
            persona_id=persona_id,
            session_id=session_id,
            namespace=checks.default_namespace,
            token_budget=request.token_budget or DEFAULT_BUDGET,
            preset=preset or Preset.BALANCED,
            allow_degraded=request.allow_degraded if request.HasField("allow_degraded") else True,
            reinforce=request.reinforce if request.HasField("reinforce") else True,
            request_id=checks.text("request_id", request.request_id, REQUEST_ID_BYTES),
        )


def categories_from_pb(request: pb.AssembleRequest, checks: Checks) -> tuple[Category, ...]:
    """Read the categories of a request."""
    if len(request.categories) > MOST_CATEGORIES:
        checks.fail("categories", f"must hold at most {MOST_CATEGORIES} categories")
    categories: list[Category] = []
    for place, wire in enumerate(request.categories[:MOST_CATEGORIES]):
        at = f"categories[{place}]"
        name = checks.required(f"{at}.name", wire.name)
        if any(category.name == name for category in categories):
            checks.fail(f"{at}.name", "must be unique in the request")
        share = checks.number(f"{at}.share", wire.HasField("share"), wire.share)
        if share is not None and share <= 0:
            checks.fail(f"{at}.share", "must be more than 0")
        categories.append(
            Category(
                name=name,
                filter=filter_from_pb(wire.filter, checks, f"{at}.filter"),
                limit=checks.count(f"{at}.limit", wire.limit, LIMITS.recall_limit, LIMITS.recall_limit_default),
                share=1.0 if share is None else share,
                text=checks.text(f"{at}.text", wire.text, LIMITS.text_bytes),
                min_score=checks.number(f"{at}.min_score", wire.HasField("min_score"), wire.min_score, -1.0, 1.0),
            )
        )
    return tuple(categories)


def section_to_pb(section: Section) -> pb.ContextSection:
    """Write a section."""
    return pb.ContextSection(
        name=section.name,
        text=section.text,
        tokens=section.tokens,
        memory_ids=section.memory_ids,
        lines=[
            pb.ContextLine(text=line.text, memory_ids=line.memory_ids, summarised=line.summarised)
            for line in section.lines
        ],
        omitted=section.omitted,
    )


def assembled_to_pb(assembled: Assembled) -> pb.AssembleSummary:
    """Write what was done."""
    duration = Duration()
    duration.FromNanoseconds(int(assembled.duration_s * 1e9))
    return pb.AssembleSummary(
        tokens=assembled.tokens,
        omitted=assembled.omitted,
        summarised=assembled.summarised,
        degraded=assembled.degraded,
        legs=summary_to_pb(Summary(assembled.legs)).legs,
        failed_categories=assembled.failed_categories,
        revision=assembled.revision,
        duration=duration,
    )
