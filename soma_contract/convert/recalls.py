"""The recall query, hits and summary from and to the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from soma.memory.v1 import memory_pb2
from soma.memory.v1 import memory_service_pb2 as pb
from soma_contract.convert.checks import Checks
from soma_contract.convert.filters import filter_from_pb, filter_to_pb
from soma_contract.convert.memories import (
    memory_from_pb,
    target_from_pb,
    target_to_pb,
    vector_to_pb,
    view_from_pb,
)
from soma_contract.convert.memory_writing import write_memory
from soma_contract.limits import LIMITS
from soma_contract.memory import View
from soma_contract.recall import (
    Explanation,
    Hit,
    Leg,
    LegExplanation,
    LegReport,
    LegState,
    Preset,
    Ranking,
    RecallQuery,
    Signals,
    Source,
    Summary,
)

_LEGS = {pb.RecallLeg.Value(f"RECALL_LEG_{leg.name}"): leg for leg in Leg}
_LEGS_PB = {leg: wire for wire, leg in _LEGS.items()}
_PRESETS = {pb.RecallPreset.Value(f"RECALL_PRESET_{preset.name}"): preset for preset in Preset}
_PRESETS_PB = {preset: wire for wire, preset in _PRESETS.items()}
_STATES_PB = {state: pb.LegState.Value(f"LEG_STATE_{state.name}") for state in LegState}
_STATES = {wire: state for state, wire in _STATES_PB.items()}
_SOURCES_PB = {source: pb.HitSource.Value(f"HIT_SOURCE_{source.name}") for source in Source}
_SOURCES = {wire: source for source, wire in _SOURCES_PB.items()}
_SIGNALS = tuple(field.name for field in fields(Signals))
_RANKING = tuple(field.name for field in fields(Ranking))
Found = TypeVar("Found")
TOKEN_BUDGET_MAX = 1_000_000
FRAME_BYTES = 1024 * 1024
"""Hits that are sent together are parted where they are more than this; a single one may be."""


def query_from_pb(wire: pb.RecallRequest, checks: Checks, path: str = "") -> RecallQuery:
    """Read what to find."""
    at = f"{path}." if path else ""
    which = wire.WhichOneof("query")
    if which is None or (which == "text" and not wire.text.strip()):
        checks.fail(f"{at}query", "give a text, an embedding or a memory to be like; without one, use List")
    preset = Preset.BALANCED if wire.preset == 0 else _PRESETS.get(wire.preset)
    if preset is None:
        checks.fail(f"{at}preset", "is not a known preset")
    legs = {_LEGS.get(leg) for leg in wire.legs}
    if None in legs:
        checks.fail(f"{at}legs", "holds an unknown leg")
    if not 0 <= wire.graph_hops <= LIMITS.hops:
        checks.fail(f"{at}graph_hops", f"must be from 1 to {LIMITS.hops}; 0 is 1")
    if not 0 <= wire.token_budget <= TOKEN_BUDGET_MAX:
        checks.fail(f"{at}token_budget", f"must be from 0 to {TOKEN_BUDGET_MAX}")
    if len(wire.recheck_memory_ids) > LIMITS.filter_values:
        checks.fail(f"{at}recheck_memory_ids", f"must hold at most {LIMITS.filter_values} ids")
    return RecallQuery(
        text=checks.text(f"{at}text", wire.text, LIMITS.text_bytes),
        embedding=checks.vector(f"{at}embedding", wire.embedding) if which == "embedding" else None,
        like=target_from_pb(wire.like, True, checks, f"{at}like") if which == "like" else None,
        filter=filter_from_pb(wire.filter, checks, f"{at}filter"),
        limit=checks.count(f"{at}limit", wire.limit, LIMITS.recall_limit, LIMITS.recall_limit_default),
        min_score=checks.number(f"{at}min_score", wire.HasField("min_score"), wire.min_score, -1.0, 1.0),
        min_relevance=checks.number(f"{at}min_relevance", wire.HasField("min_relevance"), wire.min_relevance, 0.0, 1.0),
        preset=preset or Preset.BALANCED,
        ranking=Ranking(
            **{
                field.name: checks.number(f"{at}ranking.{field.name}", True, value, 0.0, 1.0)
                for field, value in wire.ranking.ListFields()
            }
        ),
        legs=frozenset(leg for leg in legs if leg is not None),
        token_budget=wire.token_budget,
        explain=wire.explain,
        allow_degraded=wire.allow_degraded if wire.HasField("allow_degraded") else True,
        graph_hops=wire.graph_hops or 1,
        view=view_from_pb(wire.view, checks, f"{at}view"),
        text_embedding=(
            checks.vector(f"{at}text_embedding", wire.text_embedding) if wire.HasField("text_embedding") else None
        ),
        recheck_ids=tuple(
            checks.memory_id(f"{at}recheck_memory_ids[{position}]", memory_id)
            for position, memory_id in enumerate(wire.recheck_memory_ids)
        ),
    )


def query_to_pb(query: RecallQuery) -> pb.RecallRequest:
    """Write what to find."""
    wire = pb.RecallRequest(
        filter=filter_to_pb(query.filter),
        limit=query.limit,
        min_score=query.min_score,
        min_relevance=query.min_relevance,
        preset=_PRESETS_PB[query.preset],
        ranking=pb.Ranking(**{name: getattr(query.ranking, name) for name in _RANKING}),
        legs=[_LEGS_PB[leg] for leg in sorted(query.legs)],
        token_budget=query.token_budget,
        explain=query.explain,
        allow_degraded=query.allow_degraded,
        graph_hops=query.graph_hops,
        view=memory_pb2.MEMORY_VIEW_FULL if query.view is View.FULL else memory_pb2.MEMORY_VIEW_BASIC,
        recheck_memory_ids=query.recheck_ids,
    )
    if query.embedding is not None:
        wire.embedding.CopyFrom(vector_to_pb(query.embedding))
    elif query.like is not None:
        wire.like.CopyFrom(target_to_pb(query.like))
    else:
        wire.text = query.text
    if query.text_embedding is not None:
        wire.text_embedding.CopyFrom(vector_to_pb(query.text_embedding))
    return wire


def write_hit(wire: pb.RecallHit, hit: Hit, view: View = View.BASIC) -> None:
    """Write a hit into an empty message."""
    write_memory(wire.memory, hit.memory, view)
    wire.score = hit.score
    signals = wire.signals
    signals.SetInParent()
    for name in _SIGNALS:
        value = getattr(hit.signals, name)
        if value is not None:
            setattr(signals, name, value)
    wire.source = _SOURCES_PB[hit.source]
    if hit.path:
        wire.path_memory_ids.extend(hit.path)
    if hit.explanation is not None:
        wire.explanation.CopyFrom(_explanation_to_pb(hit.explanation))
    wire.tokens = hit.tokens


def hit_to_pb(hit: Hit, view: View = View.BASIC) -> pb.RecallHit:
    """Write a hit."""
    wire = pb.RecallHit()
    write_hit(wire, hit, view)
    return wire


def answer_to_pb(
    hits: Sequence[Found], write: Callable[[pb.RecallHit, Found], None], summary: Summary, *, together: bool
) -> Iterator[pb.RecallResponse]:
    """Write a whole answer: a frame for each hit and one for the summary, or as few frames as hold them together."""
    if not together:
        for hit in hits:
            alone = pb.RecallResponse()
            write(alone.hit, hit)
            yield alone
        end = pb.RecallResponse()
        _write_summary(end.summary, summary)
        yield end
        return
    frame, size = pb.RecallResponse(), 0
    for hit in hits:
        wire = frame.hits.hits.add()
        write(wire, hit)
        size += wire.ByteSize()
        if size > FRAME_BYTES and len(frame.hits.hits) > 1:
            following, size = pb.RecallResponse(), wire.ByteSize()
            following.hits.hits.add().CopyFrom(wire)
            del frame.hits.hits[-1]
            yield frame
            frame = following
    _write_summary(frame.hits.summary, summary)
    yield frame


def answer_from_pb(wire: pb.RecallResponse) -> tuple[Sequence[pb.RecallHit], pb.RecallSummary | None]:
    """Read a frame of an answer, whichever way it is sent: hits, and the summary if it is the last one."""
    match wire.WhichOneof("frame"):
        case "hit":
            return (wire.hit,), None
        case "hits":
            return wire.hits.hits, wire.hits.summary if wire.hits.HasField("summary") else None
        case _:
            return (), wire.summary


def hit_from_pb(wire: pb.RecallHit) -> Hit:
    """Read a hit that a server sent."""
    return Hit(
        memory=memory_from_pb(wire.memory, Checks(), "memory", keep_times=True),
        score=wire.score,
        signals=Signals(**{field.name: value for field, value in wire.signals.ListFields()}),
        source=_SOURCES.get(wire.source, Source.LONG_TERM),
        path=tuple(wire.path_memory_ids),
        explanation=_explanation_from_pb(wire.explanation) if wire.HasField("explanation") else None,
        tokens=wire.tokens,
    )


def summary_to_pb(summary: Summary) -> pb.RecallSummary:
    """Write a summary."""
    wire = pb.RecallSummary()
    _write_summary(wire, summary)
    return wire


def _write_summary(wire: pb.RecallSummary, summary: Summary) -> None:
    for report in summary.legs:
        leg = wire.legs.add(leg=_LEGS_PB[report.leg], state=_STATES_PB[report.state])
        _write_duration(leg.duration, report.duration_s)
        if report.cause:
            leg.cause = report.cause
        leg.candidates = report.candidates
    wire.degraded = summary.degraded
    wire.pending_rows = summary.pending_rows
    wire.considered = summary.considered
    wire.revision = summary.revision
    if summary.gone_ids:
        wire.gone_memory_ids.extend(summary.gone_ids)
    wire.tokens = summary.tokens
    _write_duration(wire.duration, summary.duration_s)


def summary_from_pb(wire: pb.RecallSummary) -> Summary:
    """Read a summary that a server sent."""
    return Summary(
        legs=tuple(
            LegReport(
                leg=_LEGS[report.leg],
                state=_STATES[report.state],
                duration_s=report.duration.ToNanoseconds() / 1e9,
                cause=report.cause,
                candidates=report.candidates,
            )
            for report in wire.legs
            if report.leg in _LEGS and report.state in _STATES
        ),
        pending_rows=wire.pending_rows,
        considered=wire.considered,
        revision=wire.revision,
        gone_ids=tuple(wire.gone_memory_ids),
        tokens=wire.tokens,
        duration_s=wire.duration.ToNanoseconds() / 1e9,
    )


def _explanation_to_pb(explanation: Explanation) -> pb.HitExplanation:
    return pb.HitExplanation(
        legs=[
            pb.LegExplanation(
                leg=_LEGS_PB[leg.leg],
                rank=leg.rank,
                score=leg.score,
                normalised=leg.normalised,
                weight=leg.weight,
            )
            for leg in explanation.legs
        ],
        adjustments=explanation.adjustments,
        matched_text=explanation.matched_text,
        matched_terms=explanation.matched_terms,
    )


def _explanation_from_pb(wire: pb.HitExplanation) -> Explanation:
    return Explanation(
        legs=tuple(
            LegExplanation(_LEGS[leg.leg], leg.rank, leg.score, leg.normalised, leg.weight) for leg in wire.legs
        ),
        adjustments=dict(wire.adjustments),
        matched_text=wire.matched_text,
        matched_terms=tuple(wire.matched_terms),
    )


def _write_duration(wire: Duration, seconds: float) -> None:
    wire.SetInParent()
    wire.seconds = int(seconds)
    wire.nanos = int(seconds % 1 * 1e9)
