"""The calling end of a connection: one place for its options.

What differs from grpc's defaults: a lost server is tried again after 0.1 s and then at least every second (the default
took 13.7 s to come back after an outage of 25 s), a dead connection is noticed by pings, and calls are spread over all
addresses a name has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ChannelTls:
    """Files a client needs to trust a server, and to be trusted if the server asks."""

    root_ca: Path | None = None
    """The authority of the server's certificate; the system's if not given."""
    certificate: Path | None = None
    private_key: Path | None = None
    server_name: str | None = None
    """The name the certificate is for, where it is not the address' own."""

    def credentials(self) -> grpc.ChannelCredentials:
        """The credentials grpc connects with."""
        return grpc.ssl_channel_credentials(
            *(_read(file) for file in (self.root_ca, self.private_key, self.certificate))
        )


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How a client treats its connections."""

    max_request_bytes: int = 8 * MIB
    max_response_bytes: int = 16 * MIB
    reconnect_min_s: float = 0.1
    reconnect_max_s: float = 1.0
    connect_timeout_s: float = 1.0
    """How long one attempt to connect may take."""
    keepalive_s: float = 30.0
    keepalive_timeout_s: float = 5.0
    service_config: str | Mapping[str, object] | None = None
    """Retry policy and timeouts per method, as gRPC's service config in JSON; round_robin is added if it names no
    balancing."""
    own_connection: bool = False
    """Whether this channel has connections of its own; grpc shares them among channels with equal options."""
    extra: Sequence[tuple[str, int | str]] = field(default=())

    def arguments(self) -> list[tuple[str, int | str]]:
        """As grpc's channel arguments."""
        return [
            ("grpc.max_send_message_length", self.max_request_bytes),
            ("grpc.max_receive_message_length", self.max_response_bytes),
            ("grpc.initial_reconnect_backoff_ms", _ms(self.reconnect_min_s)),
            ("grpc.min_reconnect_backoff_ms", _ms(self.connect_timeout_s)),
            ("grpc.max_reconnect_backoff_ms", _ms(self.reconnect_max_s)),
            ("grpc.keepalive_time_ms", _ms(self.keepalive_s)),
            ("grpc.keepalive_timeout_ms", _ms(self.keepalive_timeout_s)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.dns_min_time_between_resolutions_ms", 1000),
            ("grpc.enable_retries", 1),
            ("grpc.service_config", self._service_config()),
            ("grpc.use_local_subchannel_pool", int(self.own_connection)),
            *self.extra,
        ]

    def _service_config(self) -> str:
        given = self.service_config
        config = dict(json.loads(given) if isinstance(given, str) else given or {})
        config.setdefault("loadBalancingConfig", [{"round_robin": {}}])
        return json.dumps(config)


def open_channel(
    target: str,
    *,
    tls: ChannelTls | None = None,
    options: ChannelOptions | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """A channel to ``host:port`` or a grpc target such as ``dns:///memory:9595``; close it, or use ``async with``."""
    options = options or ChannelOptions()
    arguments = options.arguments()
    if tls is None:
        return grpc.aio.insecure_channel(target, options=arguments, interceptors=list(interceptors))
    if tls.server_name is not None:
        arguments.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(target, tls.credentials(), options=arguments, interceptors=list(interceptors))


def _read(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
