"""The two Soma servers as child processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping

import grpc.aio
from grpc_health.v1 import health_pb2

from soma_embedded.directory import DataDirectory
from soma_embedded.identity import listens
from soma_embedded.ports import LOOPBACK
from soma_embedded.program import Command, WrongProcessError

READY_SERVICE = "soma.memory.v1.MemoryService"


class SomaServer:
    """`python -m <module>`, told by its environment where everything is, ready when its health says so."""

    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL
    first_attempts = 1

    def __init__(
        self,
        name: str,
        module: str,
        directory: DataDirectory,
        port: int,
        environment: Mapping[str, str],
        *,
        stop_grace_s: float,
    ) -> None:
        self.name = name
        self.port = port
        self.stop_grace_s = stop_grace_s
        self._module = module
        self._directory = directory
        self._environment = dict(environment)

    async def prepare(self) -> Command:
        """Secrets travel in the environment, which other users cannot read."""
        return Command(
            argv=(sys.executable, "-m", self._module),
            working_directory=self._directory.root,
            environment={**self._environment, "PYTHONUNBUFFERED": "1"},
        )

    async def probe(self, pid: int) -> None:
        """Asks grpc.health.v1 whether the memory service is served, by this process and no other."""
        if not listens(pid, self.port):
            raise WrongProcessError(f"process {pid} does not listen on port {self.port}")
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{self.port}") as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            answer = await check(health_pb2.HealthCheckRequest(service=READY_SERVICE), timeout=4, wait_for_ready=True)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise ConnectionError(f"health of {READY_SERVICE} is {answer.status}")

    async def settle(self) -> None:
        """Nothing to set up: a server that is ready has migrated and registered its keys."""


async def serves_key(port: int, key: str) -> bool:
    """Whether a server answers a call with this key; False while it cannot reach what it needs to answer.

    Raises AioRpcError for every other refusal.
    """
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        # An empty message asks for the first page with every default.
        list_memories = channel.unary_unary(
            f"/{READY_SERVICE}/List", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            await list_memories(b"", metadata=(("authorization", f"Bearer {key}"),), timeout=10)
        except grpc.aio.AioRpcError as error:
            # A server that is about to stop cancels what it has taken.
            away = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
            if error.code() in away:
                return False
            raise
    return True
