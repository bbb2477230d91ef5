"""The channel to a Soma server: rpckit's, with the retry policy and the deadlines of the contract."""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import Any

import grpc

from rpckit.channel import ChannelOptions, ChannelTls, open_channel


@functools.cache
def service_config() -> str:
    """The service config that is generated from the contract's idempotency levels, as JSON."""
    return (files("soma_client") / "service_config.json").read_text()


@functools.cache
def service_config_without_retries() -> str:
    """The same deadlines, and no retry: for a caller that repeats calls itself."""
    config: dict[str, Any] = json.loads(service_config())
    for entry in config["methodConfig"]:
        entry.pop("retryPolicy", None)
    return json.dumps(config)


def open_soma_channel(
    target: str, *, tls: ChannelTls | None = None, retries: bool = True, own_connection: bool = False
) -> grpc.aio.Channel:
    """A channel to a brain or a memory server, ``host:port`` or any gRPC target; needs a running event loop.

    ``retries`` False leaves out the retry policy. ``own_connection`` shares no connection with other channels.
    """
    config = service_config() if retries else service_config_without_retries()
    return open_channel(target, tls=tls, options=ChannelOptions(service_config=config, own_connection=own_connection))
