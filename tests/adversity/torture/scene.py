"""The stack under torture, its tenants, and the channels to it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from soma.admin.v1 import operator_service_pb2 as operator_pb
from soma.admin.v1 import operator_service_pb2_grpc as operator_rpc
from soma.admin.v1 import tenant_service_pb2 as tenant_pb
from soma.admin.v1 import tenant_service_pb2_grpc as tenant_rpc
from soma_embedded import child
from soma_embedded.ports import LOOPBACK, free_port
from soma_embedded.stack import EmbeddedStack, ProcessName, StackSettings
from tests.support.fault_proxy import Fault, FaultProxy

PROCESSES: tuple[ProcessName, ...] = ("brain", "memory", "postgres", "redis", "milvus")
_STORES = {"postgres": "SOMA_POSTGRES_URL", "milvus": "SOMA_MILVUS_URI", "redis": "SOMA_REDIS_URL"}
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)
"""What a client answers by asking again."""


@dataclass(frozen=True, slots=True)
class Inhabitant:
    """A tenant, its key, and the word that only its memories hold."""

    name: str
    bearer: str
    canary: str

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What its calls carry."""
        return [("authorization", f"Bearer {self.bearer}"), ("soma-tenant", self.name)]


@dataclass(slots=True)
class Scene:
    """A running stack with tenants."""

    stack: EmbeddedStack
    brain: grpc.aio.Channel
    memory: grpc.aio.Channel
    proxies: Mapping[str, FaultProxy]
    order_file: Path
    ops: Mapping[str, str]
    """HTTP addresses of the servers' own pages, by server."""
    tenants: list[Inhabitant] = field(default_factory=list)

    @property
    def admin(self) -> list[tuple[str, str]]:
        """The development key, which may administer."""
        return [("authorization", f"Bearer {self.stack.development_key}")]

    def operator(self, *, of: str = "memory") -> Any:
        """OperatorService of a server."""
        return operator_rpc.OperatorServiceStub(self.memory if of == "memory" else self.brain)

    async def populated(self, count: int) -> Sequence[Inhabitant]:
        """Make tenants up to this number."""
        tenants = tenant_rpc.TenantServiceStub(self.memory)
        while len(self.tenants) < count:
            name = f"inhabitant-{len(self.tenants):03d}"
            record = tenant_pb.CreateTenantRequest(tenant=tenant_pb.TenantRecord(tenant=name))
            await tenants.CreateTenant(record, metadata=self.admin, timeout=20)
            made = await tenants.CreateKey(tenant_pb.CreateKeyRequest(tenants=[name]), metadata=self.admin, timeout=20)
            self.tenants.append(Inhabitant(name, made.bearer, f"canary{secrets.token_hex(16)}"))
        return self.tenants[:count]

    async def healed(self) -> None:
        """Wait until all processes answer and a call passes through both servers."""
        for proxy in self.proxies.values():
            proxy.fault = Fault.PASS
        for name in PROCESSES:
            await self.stack.ready(name)
        await self.stack.connected()

    async def settled(self, within_s: float = 120.0) -> int:
        """Wait until the brain has nothing left to deliver; return its dead letters."""
        return int((await self._until("brain", within_s)).dead_letters)

    async def indexed(self, within_s: float = 120.0) -> None:
        """Wait until the index holds everything."""
        await self._until("memory", within_s)

    async def _until(self, server: str, within_s: float) -> Any:
        """Wait until a server says that nothing is pending."""
        operator = self.operator(of=server)
        async with asyncio.timeout(within_s):
            while True:
                try:
                    if server == "brain":
                        request = operator_pb.GetOutboxRequest()
                        answer = await operator.GetOutbox(request, metadata=self.admin, timeout=5, wait_for_ready=True)
                        pending = answer.pending
                    else:
                        status = operator_pb.GetIndexStatusRequest()
                        answer = await operator.GetIndexStatus(
                            status, metadata=self.admin, timeout=5, wait_for_ready=True
                        )
                        pending = answer.pending_rows
                except grpc.aio.AioRpcError as failed:
                    if failed.code() not in AWAY:
                        raise
                else:
                    if not pending:
                        return answer
                await asyncio.sleep(0.05)

    async def reconciled(self) -> operator_pb.ReconcileReport:
        """Have the index compared with the truth and repaired."""
        operator, request = self.operator(), operator_pb.ReconcileRequest(repair=True)
        job = (await operator.Reconcile(request, metadata=self.admin, timeout=20)).job
        return (await self.ended(job)).report

    async def ended(self, job: operator_pb.IndexJob, within_s: float = 300.0) -> operator_pb.IndexJob:
        """Wait for a job of the index."""
        operator = self.operator()
        async with asyncio.timeout(within_s):
            while job.state not in (operator_pb.INDEX_JOB_STATE_DONE, operator_pb.INDEX_JOB_STATE_FAILED):
                await asyncio.sleep(0.05)
                try:
                    request = operator_pb.GetIndexJobRequest(job_id=job.job_id)
                    job = (await operator.GetIndexJob(request, metadata=self.admin, timeout=5, wait_for_ready=True)).job
                except grpc.aio.AioRpcError as failed:
                    if failed.code() not in AWAY:
                        raise
        return job


class _ProxiedStack(EmbeddedStack):
    """A stack whose servers reach their stores through proxies."""

    def __init__(self, directory: Path, settings: StackSettings, proxies: Mapping[str, FaultProxy]) -> None:
        super().__init__(directory, settings)
        self._proxies = proxies

    def _environment(self, memory_port: int) -> dict[str, str]:
        environment = super()._environment(memory_port)
        for store, proxy in self._proxies.items():
            environment[_STORES[store]] = proxy.lead_to(environment[_STORES[store]])
        return environment


@asynccontextmanager
async def open_scene(*, proxied: Sequence[str] = (), **environment: str) -> AsyncIterator[Scene]:
    """Start a stack on a directory of its own; ``proxied`` stores are behind proxies."""
    logging.getLogger("soma_embedded").setLevel(logging.ERROR)
    # A process that has died is started again soon, however often that was: death is not the exception here.
    child.LONGEST_DELAY_S = 0.5
    async with AsyncExitStack() as exits:
        root = exits.enter_context(_directory())
        proxies = {store: await exits.enter_async_context(FaultProxy(LOOPBACK, 0)) for store in proxied}
        ops = {server: f"{LOOPBACK}:{free_port()}" for server in ("memory", "brain")}
        order_file = root / "failpoint"
        settings = StackSettings(
            memory_address=f"{LOOPBACK}:0",
            brain_address=f"{LOOPBACK}:0",
            environment={
                "SOMA_TESTING": "1",
                "SOMA_FAILPOINT_FILE": str(order_file),
                "SOMA_EMBEDDER": "hashing",
                "SOMA_EMBEDDER_DIMENSIONS": "64",
                "SOMA_PREVIOUS_EMBEDDER": "hashing",
                "SOMA_PREVIOUS_EMBEDDER_DIMENSIONS": "32",
                "SOMA_INDEX_LEASE_S": "10",
                "SOMA_INDEX_VISIBLE_S": "0.2",
                "SOMA_INDEX_RETIRE_S": "2",
                "SOMA_RECONCILE_EVERY_S": "30",
                "SOMA_MEMORY_OPS_ADDRESS": ops["memory"],
                "SOMA_BRAIN_OPS_ADDRESS": ops["brain"],
                **environment,
            },
        )
        stack = await exits.enter_async_context(_ProxiedStack(root / "data", settings, proxies))
        brain = await exits.enter_async_context(grpc.aio.insecure_channel(stack.brain_address, _CHANNEL))
        memory = await exits.enter_async_context(grpc.aio.insecure_channel(stack.memory_address, _CHANNEL))
        yield Scene(stack, brain, memory, proxies, order_file, ops)


@contextmanager
def _directory() -> Iterator[Path]:
    """A directory that Postgres' own user may enter too, and that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="soma-torture-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def now() -> float:
    """The clock of all histories, in seconds."""
    return time.monotonic()
