"""Calls over one channel on behalf of one identity: metadata out, errors of the contract back."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from rpckit import metadata as keys
from rpckit.status import error_from_rpc
from soma_contract.errors import (
    CircuitBreakerOpenError,
    Code,
    ExhaustedError,
    FieldViolationError,
    SomaError,
    UnavailableError,
    Violation,
    WindowExceededError,
    WriteConflictError,
)
from soma_contract.memory import DEFAULT_NAMESPACE

Request = TypeVar("Request")
Response = TypeVar("Response")

Pairs = tuple[tuple[str, str], ...]
TraceHeaders = Callable[[], Mapping[str, str]]
"""Gives the W3C headers of the current span; OpenTelemetry's ``inject`` into a dict, for instance."""

_TRACE_KEYS = (keys.TRACEPARENT, keys.TRACESTATE, keys.BAGGAGE)
ASK_AGAIN_S = 5.0
_HEADER_SAFE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, and what a call means when it names nothing itself."""

    key: str = ""
    """The API key or JWT; never shown by ``repr``."""
    tenant: str = ""
    """One of the credential's tenants; empty takes its only one."""
    persona: str = ""
    session: str = ""
    namespace: str = DEFAULT_NAMESPACE
    """Stands in for the namespace "default" in memories, targets and filters."""

    def __repr__(self) -> str:
        shown = f"tenant={self.tenant!r}, persona={self.persona!r}, session={self.session!r}"
        return f"Identity({shown}, namespace={self.namespace!r})"

    def pairs(self) -> Pairs:
        """As call metadata; raises FieldViolationError for what no server would take."""
        named = (
            (keys.AUTHORIZATION, f"Bearer {self.key}" if self.key else ""),
            (keys.TENANT, self.tenant),
            (keys.PERSONA, self.persona),
            (keys.SESSION, self.session),
        )
        pairs = tuple((key, value) for key, value in named if value)
        violations = list(keys.read(pairs).violations)
        if not self.key.isascii():
            violations.append(Violation(f"metadata.{keys.AUTHORIZATION}", "must be ASCII text"))
        if violations:
            raise FieldViolationError(violations=violations)
        return pairs


class Calls:
    """What every call of a client goes through.

    A call that fails raises the SomaError that the server sent, or the one of its family if none came.
    """

    def __init__(
        self, channel: grpc.aio.Channel, target: str, identity: Identity, trace: TraceHeaders | None = None
    ) -> None:
        self.channel = channel
        self.target = target
        self.identity = identity
        self.trace = trace
        self._pairs = identity.pairs()

    def on_behalf_of(self, identity: Identity) -> Calls:
        """The same channel for another identity."""
        return Calls(self.channel, self.target, identity, self.trace)

    def metadata(self, request_id: str = "") -> Pairs:
        """The metadata of one call; the request id is the given one if it may travel as a header, else a new one."""
        sent = request_id if _HEADER_SAFE.fullmatch(request_id) else keys.new_request_id()
        pairs = (*self._pairs, (keys.REQUEST_ID, sent))
        if self.trace is None:
            return pairs
        headers = self.trace()
        return (*pairs, *((key, headers[key]) for key in _TRACE_KEYS if headers.get(key)))

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Response:
        """One request, one answer; without a timeout the contract's applies."""
        try:
            return await method(request, timeout=timeout_s, metadata=self.metadata(request_id))
        except grpc.aio.AioRpcError as error:
            raise self.error(error) from error

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> AsyncGenerator[Response, None]:
        """One request, many answers; leaving the loop early cancels the call."""
        call = method(request, timeout=timeout_s, metadata=self.metadata(request_id))
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self.error(error) from error
        finally:
            call.cancel()

    def error(self, failed: grpc.aio.AioRpcError) -> SomaError:
        """The error of a failed call.

        Calls wait for a connection until their deadline; one that never had a connection is told as unavailable.
        """
        error = error_from_rpc(failed)
        unconnected = self.channel.get_state() is not grpc.ChannelConnectivity.READY
        if not error.reason and error.code in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE) and unconnected:
            return UnavailableError(f"nothing answers at {self.target}: {failed.details() or 'no connection'}")
        return error

    async def fed_stream_error(
        self, failed: grpc.aio.AioRpcError, method: grpc.aio.StreamStreamMultiCallable[Request, Response]
    ) -> SomaError:
        """The error of a failed stream that this side feeds.

        When the server ends such a stream while we write, grpc may report its own failed write instead of what the
        server said. The server then says it again to a stream on which nothing is sent.
        """
        error = self.error(failed)
        if error.code is not Code.INTERNAL or error.reason:
            return error
        again = method(_nothing(), metadata=self.metadata(), timeout=ASK_AGAIN_S)
        try:
            async for _ in again:
                break
        except grpc.aio.AioRpcError as told:
            return self.error(told)
        finally:
            again.cancel()
        return UnavailableError("the stream broke off; send again what was not answered")


async def _nothing() -> AsyncGenerator[Any, None]:
    nothing: tuple[Any, ...] = ()
    for each in nothing:
        yield each


def is_passing(error: SomaError) -> bool:
    """Whether the same call may succeed later without anybody changing it."""
    return isinstance(error, UnavailableError | CircuitBreakerOpenError) or error.code is Code.UNAVAILABLE


def may_resume(error: SomaError) -> bool:
    """Whether a stream that ended so is worth opening again where it broke off."""
    if isinstance(error, WindowExceededError):
        return False
    if is_passing(error) or isinstance(error, ExhaustedError | WriteConflictError):
        return True
    # Without a reason it is the connection's own word, not a server's.
    return not error.reason and error.code in (Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED, Code.DEADLINE_EXCEEDED)
