"""Observations, items and rules of working memory from and to the wire."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from math import isclose

from google.protobuf.timestamp_pb2 import Timestamp

from brain_server.core.observing import Message, Outcome
from brain_server.core.promoting import Promoted
from brain_server.domain.item import Item, ItemKind, Verdict
from brain_server.domain.salience import WorkingRules
from soma.memory.v1 import working_memory_service_pb2 as pb
from soma_contract.completing import text_of_payload
from soma_contract.convert.checks import Checks
from soma_contract.convert.item_errors import item_error_to_pb
from soma_contract.convert.memories import durability_to_pb, kind_from_pb, kind_to_pb
from soma_contract.errors import FieldViolationError
from soma_contract.limits import LIMITS
from soma_contract.memory import Kind

_KINDS = {
    pb.ITEM_KIND_UNSPECIFIED: ItemKind.OBSERVATION,
    pb.ITEM_KIND_OBSERVATION: ItemKind.OBSERVATION,
    pb.ITEM_KIND_THOUGHT: ItemKind.THOUGHT,
    pb.ITEM_KIND_ACTION: ItemKind.ACTION,
    pb.ITEM_KIND_RESULT: ItemKind.RESULT,
}
_KINDS_PB: dict[ItemKind, pb.ItemKind.ValueType] = {
    kind: wire for wire, kind in _KINDS.items() if wire != pb.ITEM_KIND_UNSPECIFIED
}
_NUMBERS = {
    "capacity": "capacity",
    "novelty_weight": "novelty_weight",
    "reward_weight": "reward_weight",
    "recency_weight": "recency_weight",
    "admission_salience": "admission",
    "admission_reward": "always_reward",
    "refresh_cosine": "duplicate_cosine",
    "use_boost": "boost",
    "promotion_salience": "promotion",
    "promotion_ticks": "promotion_ticks",
}
"""Fields of the wire's rules and what the domain calls them."""


def message_from_pb(wire: pb.Observation) -> Message:
    """Read an observation; what is wrong with it comes back in the message."""
    checks = Checks()
    if wire.sequence < 1:
        checks.fail("observation.sequence", "must be at least 1")
    kind = item_kind_from_pb(wire.kind, checks, "observation.kind")
    payload_json = checks.payload("observation.payload_json", wire.payload_json)
    text = checks.text("observation.text", wire.text, LIMITS.text_bytes)
    reward = checks.number("observation.reward", wire.HasField("reward"), wire.reward, 0.0, 1.0)
    embedding = checks.vector("observation.embedding", wire.embedding) if wire.HasField("embedding") else None
    item_id = checks.memory_id("observation.item_id", wire.item_id)
    memory_id = checks.memory_id("observation.memory_id", wire.memory_id)
    actor = checks.text("observation.actor", wire.actor)
    occurred_at = checks.time("observation.occurred_time", wire.HasField("occurred_time"), wire.occurred_time)
    if not checks.violations and not text:
        text = text_of_payload(payload_json)
        if not text:
            checks.fail("observation.text", "give a text, or a payload with a text field")
    return Message(
        sequence=wire.sequence,
        kind=kind,
        text=text,
        payload_json=payload_json,
        reward=reward or 0.0,
        embedding=embedding,
        item_id=item_id,
        memory_id=memory_id,
        actor=actor,
        occurred_s=occurred_at.timestamp() if occurred_at is not None else 0.0,
        refusal=FieldViolationError(violations=checks.violations) if checks.violations else None,
    )


def outcome_to_pb(outcome: Outcome, promoted: Iterable[Promoted]) -> pb.ObserveResponse:
    """Write what became of an observation, and what was promoted since the last answer."""
    message, observed = outcome.message, outcome.observed
    if outcome.refusal is not None:
        refused = pb.ObservationRefused(sequence=message.sequence, error=item_error_to_pb(outcome.refusal))
        return pb.ObserveResponse(refused=refused)
    wire = pb.Observed(
        sequence=message.sequence,
        admitted=outcome.item is not None,
        already_observed=outcome.repeated,
        promoted=map(promotion_to_pb, promoted),
    )
    if outcome.item is not None:
        wire.item.CopyFrom(item_to_pb(outcome.item))
    if observed is None or outcome.repeated:
        if outcome.item is not None:
            wire.novelty = outcome.item.novelty
        return pb.ObserveResponse(observed=wire)
    wire.salience = observed.salience
    wire.novelty = observed.novelty
    wire.refreshed = observed.verdict is Verdict.REFRESHED
    if observed.evicted:
        wire.evicted_item_ids.append(observed.evicted)
    if outcome.item is None:
        wire.item.CopyFrom(
            pb.WorkingItem(
                item_id=observed.item_id,
                sequence=message.sequence,
                kind=_KINDS_PB[message.kind],
                reward=message.reward or None,
                salience=observed.salience,
                novelty=observed.novelty,
            )
        )
    return pb.ObserveResponse(observed=wire)


def item_kind_from_pb(value: pb.ItemKind.ValueType, checks: Checks, path: str) -> ItemKind:
    """Read a kind; an unknown number is a violation."""
    kind = _KINDS.get(value)
    if kind is None:
        checks.fail(path, "is not a known kind")
        return ItemKind.OBSERVATION
    return kind


def item_to_pb(item: Item) -> pb.WorkingItem:
    """Write an item."""
    return pb.WorkingItem(
        item_id=item.item_id,
        sequence=item.sequence,
        kind=_KINDS_PB[item.kind],
        text=item.text,
        payload_json=item.payload_json,
        reward=item.reward or None,
        salience=item.salience,
        novelty=item.novelty,
        uses=item.uses,
        memory_id=item.long_term_id,
        observe_time=_time(item.admitted_s),
        use_time=_time(item.used_s),
        salient_ticks=item.streak,
    )


def promotion_to_pb(promoted: Promoted) -> pb.Promotion:
    """Write what became of a promotion."""
    wire = pb.Promotion(
        item_id=promoted.item_id,
        memory_id=promoted.memory_id,
        cause=pb.PROMOTION_CAUSE_REQUESTED if promoted.requested else pb.PROMOTION_CAUSE_SALIENCE,
    )
    if promoted.durability is not None:
        wire.durability = durability_to_pb(promoted.durability)
    if promoted.error is not None:
        wire.error.CopyFrom(item_error_to_pb(promoted.error))
    return wire


def rules_from_pb(wire: pb.WorkingMemoryRules, rules: WorkingRules, checks: Checks) -> WorkingRules:
    """Return the rules with the fields that are set changed; raises FieldViolationError for what they cannot be."""
    changes: dict[str, object] = {
        _NUMBERS[field.name]: value for field, value in wire.ListFields() if field.name in _NUMBERS
    }
    if wire.HasField("half_life"):
        changes["half_life_s"] = wire.half_life.ToTimedelta() / timedelta(seconds=1)
    if wire.HasField("promotion_namespace_id"):
        name = checks.namespace("rules.promotion_namespace_id", wire.promotion_namespace_id)
        changes["promotion_namespace"] = name
    if wire.HasField("promotion_kind"):
        changes["promotion_kind"] = kind_from_pb(wire.promotion_kind, checks, "rules.promotion_kind").value
    try:
        rules = replace(rules, **changes)  # type: ignore[arg-type] # by the table above
    except ValueError as error:
        checks.fail("rules", str(error))
    if not isclose(rules.novelty_weight + rules.reward_weight + rules.recency_weight, 1.0, abs_tol=1e-6):
        checks.fail("rules", "the three weights must sum to 1")
    checks.done()
    return rules


def rules_to_pb(rules: WorkingRules) -> pb.WorkingMemoryRules:
    """Write rules, every field."""
    wire = pb.WorkingMemoryRules(
        promotion_namespace_id=rules.promotion_namespace, promotion_kind=kind_to_pb(Kind(rules.promotion_kind))
    )
    for name, domain in _NUMBERS.items():
        setattr(wire, name, getattr(rules, domain))
    wire.half_life.FromTimedelta(timedelta(seconds=rules.half_life_s))
    return wire


def _time(at_s: float) -> Timestamp:
    microseconds = round(at_s * 1e6)
    return Timestamp(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1_000)
