"""The listening end of a connection: one place for its options, its standard services and its keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection

from rpckit.interceptors.chain import CallChain

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server treats its connections."""

    max_request_bytes: int = 4 * MIB
    """What a request may hold; the transport takes ``slack_bytes`` more, so that the edge is refused by us in words."""
    max_response_bytes: int = 16 * MIB
    slack_bytes: int = 64 * 1024
    max_streams: int = 1000
    """Calls at once on one connection. With grpc's overload protection this stops a rapid-reset attacker: measured, an
    honest caller's p50 is 0.7 ms during an attack, without the protection 830 ms. The protection counts a call until
    its last memory is freed, so the limit must be far above what honest callers run: at 100 it refused 4 % of the
    calls of 64 concurrent ones, with a bare UNAVAILABLE. Admission bounds them, and says so."""
    max_calls: int = 4096
    """Calls at once in the process: a backstop far above admission, whose refusals say more."""
    metadata_bytes: int = 16 * 1024
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    min_ping_s: float = 10.0
    """Clients that ping more often are sent away; ours ping every 30 s."""
    connection_age_s: float | None = None
    """After this long (± 10 %) a connection is closed in an orderly way, so that a balancer can place it anew."""
    connection_age_grace_s: float = 60.0
    workers: bool = False
    """Whether several processes share the port. If not, a port in use is an error instead of half the calls."""

    def arguments(self) -> list[tuple[str, int | str]]:
        """As grpc's channel arguments."""
        arguments: list[tuple[str, int | str]] = [
            ("grpc.so_reuseport", int(self.workers)),
            ("grpc.max_receive_message_length", self.max_request_bytes + self.slack_bytes),
            ("grpc.max_send_message_length", self.max_response_bytes),
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.http.overload_protection", 1),
            ("grpc.max_metadata_size", self.metadata_bytes // 2),
            ("grpc.absolute_max_metadata_size", self.metadata_bytes),
            ("grpc.keepalive_time_ms", _ms(self.keepalive_s)),
            ("grpc.keepalive_timeout_ms", _ms(self.keepalive_timeout_s)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", _ms(self.min_ping_s)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(self.min_ping_s)),
        ]
        if self.connection_age_s is not None:
            arguments += [
                ("grpc.max_connection_age_ms", _ms(self.connection_age_s)),
                ("grpc.max_connection_age_grace_ms", _ms(self.connection_age_grace_s)),
            ]
        return arguments


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Files of a server's certificate; read again when they change, so a renewed one needs no restart."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None
    """If given, clients must show a certificate of this authority."""

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials grpc serves with."""
        seen = self._stamp()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal seen
            stamp = self._stamp()
            if stamp == seen:
                return None
            configuration = self._configuration()
            seen = stamp
            return configuration

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            renewed,  # type: ignore[arg-type] # None means "as before", which the stubs do not know
            require_client_authentication=self.client_ca is not None,
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (self.private_key.read_bytes(), self.certificate.read_bytes())
        roots = None if self.client_ca is None else self.client_ca.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)

    def _stamp(self) -> tuple[int, ...]:
        files = (self.certificate, self.private_key, *([self.client_ca] if self.client_ca else ()))
        return tuple(path.stat().st_mtime_ns for path in files)


def new_server(chain: CallChain, options: ServerOptions | None = None) -> grpc.aio.Server:
    """A server whose every call passes ``chain``; services and ports are added by the caller."""
    options = options or ServerOptions()
    return grpc.aio.server(
        interceptors=[chain],
        options=options.arguments(),
        maximum_concurrent_rpcs=options.max_calls,
        compression=grpc.Compression.NoCompression,
    )


def bind(server: grpc.aio.Server, address: str, tls: ServerTls | None = None) -> int:
    """Listen on ``host:port`` and return the port, which matters for port 0.

    Raises OSError that says which address cannot be had.
    """
    try:
        port = server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: it is in use or not an address of this machine") from error
    if not port:
        raise OSError(f"cannot listen on {address}: it is in use or not an address of this machine")
    return port


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Let grpcurl and its like list ``services`` and read their protos.

    Raises KeyError for a service whose stubs nobody imported: it would be listed, and not found.
    """
    for service in services:
        descriptor_pool.Default().FindServiceByName(service)
    names: Sequence[str] = (*services, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=_Symbols())  # type: ignore[arg-type] # what is used of one


class _Symbols:
    """The default descriptor pool, which also finds what stands inside of another symbol: an rpc, a field."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - the pool's name for it
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            outer = symbol.rpartition(".")[0]
            if not outer:
                raise
            return self._pool.FindFileContainingSymbol(outer)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
