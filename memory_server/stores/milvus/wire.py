"""Calls to a Milvus engine: one channel, one deadline a call, errors told apart.

pymilvus' own asynchronous client retries inside a call, keeps a process-wide connection registry behind one lock
and logs a traceback for every failure; it also costs 40 % more CPU a search (1.2 ms against 0.85 ms).  The stubs
and messages it is built on are used here directly, so that a deadline is a deadline.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import grpc

from memory_server.ports import CollectionLostError
from memory_server.stores.milvus.messages import common_pb2, milvus_pb2, milvus_pb2_grpc
from rpckit.telemetry.tracing import store_span
from soma_contract.errors import ComponentUnavailableError

COMPONENT = "milvus"

_DEFAULT_PORT = 19_530
_COLLECTION_NOT_FOUND = 100
_COLLECTION_NOT_LOADED = 101
EXECUTION_FAILED = 2000
_REFUSALS = (range(700, 800), range(1100, 1200), range(1700, 1800), range(2000, 2100))
"""Codes of requests that fail again when repeated: index, parameter, field and execution errors."""

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Less often than the embedded engine suffers during a call that takes long: it would cut the connection.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class MilvusAddress:
    """Where Milvus is: the embedded engine, one server and a cluster differ in this alone."""

    target: str
    """``host:port``."""
    token: str = field(default="", repr=False)
    """``user:password`` or an API key; empty for none."""
    database: str = ""
    tls: bool = False
    ca_certificate: bytes | None = field(default=None, repr=False)
    """PEM of the authorities to trust; None for the system's."""

    @classmethod
    def parse(cls, uri: str, *, token: str = "", ca_certificate: bytes | None = None) -> Self:
        """Read ``http(s)://[user:password@]host[:port][/database]``; raises ValueError for anything else."""
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https", "tcp") or not parts.hostname:
            raise ValueError("a Milvus address looks like http://host:19530 or https://host:19530/database")
        if not token and parts.username:
            token = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(
            f"{host}:{parts.port or _DEFAULT_PORT}",
            token=token,
            database=parts.path.strip("/"),
            tls=parts.scheme == "https",
            ca_certificate=ca_certificate,
        )


class LateError(ComponentUnavailableError):
    """The vector index did not answer in time."""


class RefusedError(Exception):
    """The engine answered that it cannot do this; a repetition will not help.

    Its reason is not kept: it repeats the expression or the values, and those may be another tenant's.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the index refuses this with code {code}")
        self.code = code


class NotLoadedError(Exception):
    """The collection is there but not in memory."""


class MilvusWire:
    """A channel to Milvus; an async context manager."""

    def __init__(self, address: MilvusAddress) -> None:
        self._address = address
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._embedded: bool | None = None
        metadata = []
        if address.token:
            metadata.append(("authorization", base64.b64encode(address.token.encode()).decode()))
        if address.database:
            metadata.append(("dbname", address.database))
        self._metadata = tuple(metadata)

    async def __aenter__(self) -> Self:
        if self._address.tls:
            credentials = grpc.ssl_channel_credentials(root_certificates=self._address.ca_certificate)
            self._channel = grpc.aio.secure_channel(self._address.target, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(self._address.target, options=_OPTIONS)
        self._stub = milvus_pb2_grpc.MilvusServiceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def call(self, method: str, request: Any, *, timeout_s: float) -> Any:
        """Call ``method`` and return its answer.

        Raises ComponentUnavailableError (no answer in time, or the engine is in trouble), CollectionLostError,
        NotLoadedError, or RefusedError.
        """
        try:
            with store_span(COMPONENT, method):
                answer = await getattr(self._stub, method)(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(method, error, timeout_s) from error
        _check(answer.status if hasattr(answer, "status") else answer, request)
        return answer

    async def is_embedded(self, *, timeout_s: float) -> bool:
        """Whether this is the embedded engine, which alone does not know its version; asked once."""
        if self._embedded is None:
            try:
                await self._stub.GetVersion(milvus_pb2.GetVersionRequest(), timeout=timeout_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise self._unavailable("GetVersion", error, timeout_s) from error
                self._embedded = True
            else:
                self._embedded = False
        return self._embedded

    @staticmethod
    def _unavailable(method: str, error: grpc.aio.AioRpcError, timeout_s: float) -> ComponentUnavailableError:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"The vector index did not answer {method} within {timeout_s:.3f} s."
            return LateError(message, component=COMPONENT)
        message = f"The vector index did not answer {method}: {error.code().name}."
        return ComponentUnavailableError(message, component=COMPONENT)


def _check(status: Any, request: Any) -> None:
    code = status.code or status.error_code
    if code == common_pb2.ErrorCode.Success:
        return
    name = getattr(request, "collection_name", "")
    if code == _COLLECTION_NOT_FOUND or status.error_code == common_pb2.ErrorCode.CollectionNotExists:
        raise CollectionLostError(name)
    if code == _COLLECTION_NOT_LOADED:
        raise NotLoadedError(name)
    if any(code in refusals for refusals in _REFUSALS):
        raise RefusedError(code)
    raise ComponentUnavailableError(f"The vector index is in trouble: code {code}.", component=COMPONENT)
