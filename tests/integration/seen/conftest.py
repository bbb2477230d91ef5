"""A stack that exports its spans to a collector of the test's own and has its ops ports open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest_asyncio

from soma_embedded.ports import free_port
from soma_embedded.stack import EmbeddedStack
from tests.support.collector import Collector
from tests.support.stack import RANDOM_PORTS, Office, opened
from tests.support.stores import data_directory


@dataclass(frozen=True, slots=True)
class Scene:
    """A watched stack."""

    stack: EmbeddedStack
    office: Office
    collector: Collector
    ops: dict[str, str]
    """Where each server's ops port is, host:port."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene() -> AsyncIterator[Scene]:
    """One for each module; a test makes tenants of its own."""
    ops = {server: f"127.0.0.1:{free_port()}" for server in ("brain", "memory")}
    async with Collector() as collector:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "SOMA_BRAIN_OPS_ADDRESS": ops["brain"],
            "SOMA_MEMORY_OPS_ADDRESS": ops["memory"],
        }
        with data_directory() as path:
            async with EmbeddedStack(path / "data", replace(RANDOM_PORTS, environment=environment)) as stack:
                office = await opened(stack)
                try:
                    yield Scene(stack, office, collector, ops)
                finally:
                    await office.brain.close()
                    await office.memory.close()
