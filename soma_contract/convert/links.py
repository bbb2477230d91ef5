"""Links, what changes them and what is asked of them, from and to the wire."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2 as pb
from soma_contract.convert.checks import Checks
from soma_contract.convert.memories import (
    REQUEST_ID_BYTES,
    durability_to_pb,
    memory_to_pb,
    target_from_pb,
    target_to_pb,
    timestamp,
)
from soma_contract.json_rules import JsonRuleError, parse_payload
from soma_contract.limits import LIMITS
from soma_contract.links import (
    FAN_OUT,
    RELATED,
    RESERVED_METADATA,
    Direction,
    Evidence,
    GraphSummary,
    Link,
    LinkWritten,
    MakeLink,
    MemoryPath,
    Neighbor,
    NeighborQuery,
    OptionOutcome,
    PathQuery,
    RankedMemory,
    RankQuery,
    Reach,
    Reinforced,
    RemoveLink,
    SubgraphQuery,
    UseTogether,
)
from soma_contract.memory import Durability, Memory, Target

_DIRECTIONS = {
    pb.DIRECTION_UNSPECIFIED: Direction.BOTH,
    pb.DIRECTION_BOTH: Direction.BOTH,
    pb.DIRECTION_OUTGOING: Direction.OUTGOING,
    pb.DIRECTION_INCOMING: Direction.INCOMING,
}
RELATIONS = 64
TARGETS = 100
PATHS = 10
RANKED = 1_000


# --- what changes links --------------------------------------------------------------------------


def link_from_pb(wire: pb.LinkRequest, checks: Checks) -> MakeLink:
    """Read a link to make."""
    source, target = _ends(wire, checks)
    strength = checks.number("strength", wire.HasField("strength"), wire.strength, 0.0, 1.0)
    if strength == 0.0:
        checks.fail("strength", "must be over 0 and at most 1; use Unlink to remove a link")
    valid_from = checks.time("valid_from_time", wire.HasField("valid_from_time"), wire.valid_from_time)
    valid_until = checks.time("valid_until_time", wire.HasField("valid_until_time"), wire.valid_until_time)
    if valid_from is not None and valid_until is not None and valid_until <= valid_from:
        checks.fail("valid_until_time", "must be after valid_from_time")
    if wire.HasField("if_match") and wire.if_match < 0:
        checks.fail("if_match", "must be a version, or 0 for a link that must not exist")
    return MakeLink(
        source=source,
        target=target,
        relation=checks.text("relation", wire.relation) or RELATED,
        strength=1.0 if strength is None else strength,
        metadata_json=metadata_from_pb(wire.metadata_json, checks, "metadata_json"),
        valid_from=valid_from,
        valid_until=valid_until,
        if_match=wire.if_match if wire.HasField("if_match") else None,
        request_id=checks.text("request_id", wire.request_id, REQUEST_ID_BYTES),
    )


def link_command_to_pb(command: MakeLink) -> pb.LinkRequest:
    """Write a link to make."""
    return pb.LinkRequest(
        source=target_to_pb(command.source),
        target=target_to_pb(command.target),
        relation=command.relation,
        strength=command.strength,
        metadata_json=command.metadata_json,
        valid_from_time=timestamp(command.valid_from),
        valid_until_time=timestamp(command.valid_until),
        if_match=command.if_match,
        request_id=command.request_id,
    )


def unlink_from_pb(wire: pb.UnlinkRequest, checks: Checks) -> RemoveLink:
    """Read a link to remove."""
    source, target = _ends(wire, checks)
    if wire.HasField("if_match") and wire.if_match < 1:
        checks.fail("if_match", "must be a version, which is at least 1")
    return RemoveLink(
        source=source,
        target=target,
        relation=checks.text("relation", wire.relation) or RELATED,
        if_match=wire.if_match if wire.HasField("if_match") else None,
        allow_missing=wire.allow_missing,
        request_id=checks.text("request_id", wire.request_id, REQUEST_ID_BYTES),
    )


def unlink_to_pb(command: RemoveLink) -> pb.UnlinkRequest:
    """Write a link to remove."""
    return pb.UnlinkRequest(
        source=target_to_pb(command.source),
        target=target_to_pb(command.target),
        relation=command.relation,
        if_match=command.if_match,
        allow_missing=command.allow_missing,
        request_id=command.request_id,
    )


def metadata_from_pb(value: str, checks: Checks, path: str) -> str:
    """Check a link's metadata: a JSON object without fields that belong to the system."""
    if not value:
        return ""
    try:
        parsed = parse_payload(value)
    except JsonRuleError as error:
        checks.fail(path, str(error).replace("payload", "metadata"))
        return value
    if reserved := _reserved(parsed):
        checks.fail(path, f"must not hold {reserved!r}: it belongs to the system")
    return value


def evidence_from_pb(wire: pb.ReinforceRequest, checks: Checks) -> Evidence:
    """Read one frame of what was learnt."""
    if not wire.request_id:
        checks.fail("request_id", "is required on every frame")
    if wire.sequence < 1:
        checks.fail("sequence", "must be at least 1")
    request_id = checks.text("request_id", wire.request_id, REQUEST_ID_BYTES)
    if "\x1f" in request_id:
        checks.fail("request_id", "must not hold control characters")
    which = wire.WhichOneof("evidence")
    if which == "option_outcome":
        path = "option_outcome"
        learnt: UseTogether | OptionOutcome = OptionOutcome(
            memory_id=checks.memory_id(
                f"{path}.memory_id", checks.required(f"{path}.memory_id", wire.option_outcome.memory_id)
            ),
            outcome=checks.number(f"{path}.outcome", True, wire.option_outcome.outcome, -1.0, 1.0) or 0.0,
        )
    else:
        used = wire.used_together
        if which is None:
            checks.fail("evidence", "say what was learnt: used_together or option_outcome")
        elif not 2 <= len(used.memory_ids) <= FAN_OUT:
            checks.fail("used_together.memory_ids", f"must hold 2 to {FAN_OUT} ids")
        ids = [
            checks.memory_id(f"used_together.memory_ids[{position}]", checks.required("used_together.memory_ids", one))
            for position, one in enumerate(used.memory_ids[:FAN_OUT])
        ]
        plan_id = checks.text("used_together.plan_id", used.plan_id)
        learnt = UseTogether(tuple(dict.fromkeys(ids)), plan_id)
    return Evidence(request_id, wire.sequence, learnt)


def evidence_to_pb(evidence: Evidence) -> pb.ReinforceRequest:
    """Write one frame of what was learnt."""
    wire = pb.ReinforceRequest(request_id=evidence.request_id, sequence=evidence.sequence)
    if isinstance(evidence.learnt, UseTogether):
        wire.used_together.memory_ids.extend(evidence.learnt.memory_ids)
        wire.used_together.plan_id = evidence.learnt.plan_id
    else:
        wire.option_outcome.memory_id = evidence.learnt.memory_id
        wire.option_outcome.outcome = evidence.learnt.outcome
    return wire


# --- what is asked -------------------------------------------------------------------------------


def neighbors_from_pb(wire: pb.NeighborsRequest, checks: Checks) -> NeighborQuery:
    """Read where to look around."""
    return NeighborQuery(
        target=target_from_pb(wire.target, wire.HasField("target"), checks, "target"),
        hops=checks.count("k_hop", wire.k_hop, LIMITS.hops, 1),
        reach=reach_from_pb(wire, checks),
        limit=checks.count("limit", wire.limit, LIMITS.neighbours, 100),
        include_memories=wire.include_memories,
    )


def path_from_pb(wire: pb.FindPathRequest, checks: Checks) -> PathQuery:
    """Read between which memories to find paths."""
    source, target = _ends(wire, checks)
    return PathQuery(
        source=source,
        target=target,
        max_length=checks.count("max_length", wire.max_length, LIMITS.path_length, 6),
        max_paths=checks.count("max_paths", wire.max_paths, PATHS, 1),
        reach=reach_from_pb(wire, checks),
    )


def subgraph_from_pb(wire: pb.SubgraphRequest, checks: Checks) -> SubgraphQuery:
    """Read what to draw."""
    if not 0 <= wire.radius <= LIMITS.hops:
        checks.fail("radius", f"must be from 0 to {LIMITS.hops}")
    return SubgraphQuery(
        targets=_targets(wire.targets, checks),
        radius=wire.radius,
        max_nodes=checks.count("max_nodes", wire.max_nodes, LIMITS.neighbours, 100),
        reach=reach_from_pb(wire, checks),
    )


def rank_from_pb(wire: pb.RankRequest, checks: Checks) -> RankQuery:
    """Read where to start ranking."""
    damping = checks.number("damping", wire.HasField("damping"), wire.damping, 0.0, 1.0)
    if damping in (0.0, 1.0):
        checks.fail("damping", "must be over 0 and below 1")
    return RankQuery(
        targets=_targets(wire.targets, checks),
        radius=checks.count("radius", wire.radius, LIMITS.hops, 2),
        damping=0.85 if damping is None else damping,
        limit=checks.count("limit", wire.limit, RANKED, 50),
        reach=reach_from_pb(wire, checks),
    )


def reach_from_pb(wire: Any, checks: Checks) -> Reach:
    """Read which links are followed, from any request that says so."""
    direction: Direction | None = Direction.BOTH
    if hasattr(wire, "direction"):
        direction = _DIRECTIONS.get(wire.direction)
        if direction is None:
            checks.fail("direction", "is not a known direction")
    min_strength = 0.0
    if hasattr(wire, "min_strength"):
        min_strength = checks.number("min_strength", True, wire.min_strength, 0.0, 1.0) or 0.0
    relations = checks.labels("relations", wire.relations, RELATIONS)
    return Reach(direction or Direction.BOTH, tuple(dict.fromkeys(relations)), min_strength)


# --- answers -------------------------------------------------------------------------------------


def link_to_pb(link: Link) -> pb.MemoryLink:
    """Write a link."""
    return pb.MemoryLink(
        source_id=link.source_id,
        target_id=link.target_id,
        relation=link.relation,
        strength=link.strength,
        metadata_json=link.metadata_json,
        valid_from_time=timestamp(link.valid_from),
        valid_until_time=timestamp(link.valid_until),
        version=link.version,
        create_time=timestamp(link.created_at),
        update_time=timestamp(link.updated_at),
    )


def link_of_pb(wire: pb.MemoryLink) -> Link:
    """Read a link that a server sent."""
    checks = Checks()
    return Link(
        source_id=wire.source_id,
        target_id=wire.target_id,
        relation=wire.relation,
        strength=wire.strength,
        metadata_json=wire.metadata_json,
        valid_from=checks.time("valid_from_time", wire.HasField("valid_from_time"), wire.valid_from_time),
        valid_until=checks.time("valid_until_time", wire.HasField("valid_until_time"), wire.valid_until_time),
        version=wire.version,
        created_at=checks.time("create_time", wire.HasField("create_time"), wire.create_time),
        updated_at=checks.time("update_time", wire.HasField("update_time"), wire.update_time),
    )


def linked_to_pb(written: LinkWritten) -> pb.LinkResponse:
    """Write what was stored."""
    return pb.LinkResponse(
        link=link_to_pb(written.link) if written.link else None,
        durability=common.DURABILITY_STORED,
        revision=written.revision,
        created=written.created,
    )


def reinforced_to_pb(reinforced: Reinforced, durability: Durability) -> pb.ReinforceResponse:
    """Write what came of frames."""
    return pb.ReinforceResponse(
        applied=reinforced.applied,
        repeated_frames=reinforced.repeated,
        unknown_ids=reinforced.unknown,
        durability=durability_to_pb(durability),
        revision=reinforced.revision if durability is Durability.STORED else 0,
    )


def neighbor_to_pb(neighbor: Neighbor) -> pb.Neighbor:
    """Write a neighbour."""
    return pb.Neighbor(
        memory_id=neighbor.memory_id,
        depth=neighbor.depth,
        strength=neighbor.strength,
        via=link_to_pb(neighbor.via),
        memory=memory_to_pb(neighbor.memory) if neighbor.memory else None,
    )


def path_to_pb(path: MemoryPath) -> pb.MemoryPath:
    """Write a path."""
    return pb.MemoryPath(memory_ids=path.memory_ids, links=map(link_to_pb, path.links), cost=path.cost)


def nodes_to_pb(memories: Sequence[Memory], depths: Sequence[int]) -> pb.SubgraphNodes:
    """Write memories of a subgraph."""
    return pb.SubgraphNodes(memories=map(memory_to_pb, memories), depths=depths)


def ranked_to_pb(ranked: Iterable[RankedMemory], summary: GraphSummary) -> pb.RankResponse:
    """Write a ranking."""
    return pb.RankResponse(
        ranked=[pb.RankResponse.RankedMemory(memory_id=one.memory_id, score=one.score) for one in ranked],
        summary=graph_summary_to_pb(summary),
    )


def graph_summary_to_pb(summary: GraphSummary) -> pb.GraphSummary:
    """Write how a graph call ended."""
    return pb.GraphSummary(partial=summary.partial, visited=summary.visited, spent=summary.spent)


def _ends(wire: Any, checks: Checks) -> tuple[Target, Target]:
    source = target_from_pb(wire.source, wire.HasField("source"), checks, "source")
    target = target_from_pb(wire.target, wire.HasField("target"), checks, "target")
    if not checks.violations and source == target and not isinstance(wire, pb.FindPathRequest):
        checks.fail("target", "must not be the source: a memory is never linked to itself")
    return source, target


def _targets(wires: Sequence[common.MemoryTarget], checks: Checks) -> tuple[Target, ...]:
    if not 1 <= len(wires) <= TARGETS:
        checks.fail("targets", f"must hold 1 to {TARGETS} memories")
    targets = [
        target_from_pb(wire, True, checks, f"targets[{position}]") for position, wire in enumerate(wires[:TARGETS])
    ]
    return tuple(dict.fromkeys(targets))


def _reserved(metadata: dict[str, Any]) -> str:
    """The first key that belongs to the system, or an empty string."""
    return next((key for key in metadata if key.strip().lower().replace("-", "_") in RESERVED_METADATA), "")
