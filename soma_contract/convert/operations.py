"""What both servers tell operators: limits, identity, components."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from soma.admin.v1 import operator_service_pb2 as pb
from soma_contract.convert.memories import timestamp
from soma_contract.errors import FieldViolationError
from soma_contract.limits import LIMITS, Limits
from soma_contract.tenant import Caller, Tenant


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Which server this is; ``role`` is memory or brain."""

    role: str
    version: str
    instance_id: str
    started_at: datetime
    services: tuple[str, ...]
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbeddingIdentity:
    """Which vectors a server works with."""

    profile: str
    model: str
    dimension: int


LONGEST_GRACE_S = 600.0


def grace_of(request: pb.DrainRequest) -> float | None:
    """Read the grace asked for, in seconds; None for the server's own.  Raises FieldViolationError."""
    if not request.HasField("grace"):
        return None
    grace_s = request.grace.ToNanoseconds() / 1e9
    if not 0 <= grace_s <= LONGEST_GRACE_S:
        raise FieldViolationError.at("grace", f"must be from 0 s to {LONGEST_GRACE_S:g} s")
    return grace_s


def drain_to_pb(running: int, streams: int, now: datetime, longest_s: float) -> pb.DrainResponse:
    """Write what a server that goes down still has to do; ``running`` counts the call that asked."""
    return pb.DrainResponse(
        calls_in_flight=max(0, running - 1),
        streams=streams,
        deadline_time=timestamp(now + timedelta(seconds=longest_s)),
    )


def server_info_to_pb(
    server: ServerIdentity, embedding: EmbeddingIdentity | None, now: datetime, *, draining: bool
) -> pb.GetServerInfoResponse:
    """Write who a server is and what it enforces."""
    wire = pb.GetServerInfoResponse(
        role=pb.ServerRole.Value(f"SERVER_ROLE_{server.role.upper()}"),
        version=server.version,
        instance_id=server.instance_id,
        start_time=timestamp(server.started_at),
        server_time=timestamp(now),
        limits=limits_to_pb(LIMITS),
        tokenizer="all-MiniLM-L6-v2 word pieces",
        services=server.services,
        features=server.features,
        draining=draining,
    )
    if embedding is not None:
        wire.embedding.profile = embedding.profile
        wire.embedding.model = embedding.model
        wire.embedding.dimension = embedding.dimension
    return wire


def limits_to_pb(limits: Limits) -> pb.Limits:
    """Write the limits."""
    wire = pb.Limits(
        **{field.name: getattr(limits, field.name) for field in fields(Limits) if field.name != "ttl_max_s"}
    )
    wire.ttl_max.FromSeconds(int(limits.ttl_max_s))
    return wire


def who_am_i_to_pb(caller: Caller, tenant: Tenant | None, persona: str, session: str) -> pb.WhoAmIResponse:
    """Write who calls, and for whom."""
    return pb.WhoAmIResponse(
        credential_id=caller.credential_id,
        tenant=tenant.name if tenant else "",
        tenants=sorted(caller.tenants),
        scopes=sorted(caller.scopes),
        namespaces=caller.namespaces,
        persona_id=persona,
        session_id=session,
    )


@dataclass(frozen=True, slots=True)
class ComponentState:
    """One component; ``state`` is healthy, degraded, down or unknown."""

    name: str
    state: str
    latency_s: float | None
    since: datetime
    last_error: str = ""
    essential: bool = False
    version: str = ""


def components_to_pb(components: Iterable[ComponentState]) -> pb.GetComponentsResponse:
    """Write how the components are."""
    wire = pb.GetComponentsResponse()
    for component in components:
        one = wire.components.add(
            name=component.name,
            state=pb.ComponentState.Value(f"COMPONENT_STATE_{component.state.upper()}"),
            since_time=timestamp(component.since),
            last_error=component.last_error,
            essential=component.essential,
            version=component.version,
        )
        if component.latency_s is not None:
            one.latency.FromNanoseconds(int(component.latency_s * 1e9))
    return wire
