"""Loopback ports for processes that are started a moment later."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
# Below every system's ephemeral range: no outgoing connection can take the port while its owner restarts.
RANGE = range(15_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a listener could take the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """A port nobody listens on: the preferred one if it is free, else a random one."""
    if preferred is not None and is_free(preferred):
        return preferred
    for _ in range(200):
        port = random.choice(RANGE)
        if is_free(port):
            return port
    raise OSError("no free loopback port between 15000 and 32000")
