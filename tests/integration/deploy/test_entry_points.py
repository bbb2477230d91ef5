"""What the containers of deploy/compose.yaml run, run here: same commands, same environment, other addresses."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from soma_embedded.ports import free_port
from soma_embedded.stores import EmbeddedStores
from tests.e2e.console import Ended, run
from tests.support.collector import Collector
from tests.support.compose import DEPLOY, Service, services
from tests.support.entry_points import Started, program, started
from tests.support.envoy import envoy_before
from tests.support.stores import data_directory
from tests.support.tools import tool

pytestmark = pytest.mark.processes
_METRIC = re.compile(r"\b(?:sfm|circuit_breaker|outbox|wm|degraded)_[a-z_]+\b")
_SERIES = re.compile(r"_(?:bucket|count|sum)$")


@dataclass(frozen=True, slots=True)
class Composed:
    """Both servers as the composed ones are."""

    services: dict[str, Service]
    memory: Started
    brain: Started
    envoy: str
    collector: Collector
    stores: EmbeddedStores
    key: str

    async def soma(self, *arguments: str, **environment: str) -> Ended:
        """The command line as somebody has it who enters the brain's container."""
        target = self.services["brain"].environment["SOMA_BRAIN_ADDRESS"]
        inside = {**self.services["brain"].environment, "SOMA_TARGET": target, **environment}
        return await run(str(program("soma")), *arguments, **inside)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def composed() -> AsyncIterator[Composed]:
    async with AsyncExitStack() as stack:
        path = stack.enter_context(data_directory())
        collector = await stack.enter_async_context(Collector())
        stores = await stack.enter_async_context(EmbeddedStores(path / "stores"))
        urls = {name: urlsplit(url) for name, url in stores.environment().items()}
        owner, application = urls["SOMA_POSTGRES_ADMIN_URL"], urls["SOMA_POSTGRES_URL"]
        redis, milvus = urls["SOMA_REDIS_URL"], urls["SOMA_MILVUS_URI"]
        memory, memory_ops, brain, brain_ops = (f"127.0.0.1:{free_port()}" for _ in range(4))
        here = {
            "@postgres:5432": f"@{owner.hostname}:{owner.port}",
            "@redis:6379": f"@{redis.hostname}:{redis.port}",
            "milvus:19530": milvus.netloc,
            "http://otel-collector:4317": collector.endpoint,
            "/etc/soma": str(path / "keys"),
            "/var/lib/soma": str(path / "brain"),
            **{f"{name}:{port}": at for name in ("0.0.0.0", "127.0.0.1", "memory", "brain") for port, at in (
                (9595, memory), (9599, memory_ops), (9696, brain), (9699, brain_ops)
            )},
        }  # fmt: skip
        variables = {
            "POSTGRES_OWNER_PASSWORD": owner.password or "",
            "POSTGRES_APP_PASSWORD": application.password or "",
            "REDIS_PASSWORD": redis.password or "",
        }
        found = services(variables, here)
        for name in ("keys", "migrate"):
            once = found[name]
            ended = await run(str(program(once.command[0])), *once.command[1:], **once.environment)
            assert 0 == ended.code, f"{name}: {ended.err}"
        running: dict[str, Started] = {}
        for name, ops in (("memory", memory_ops), ("brain", brain_ops)):
            one = found[name]
            argv = [str(program(one.command[0])), *one.command[1:]]
            # Nothing of the source tree is found from here: the programs are what is installed.
            log = path / f"{name}.log"
            running[name] = await stack.enter_async_context(
                started(argv, {**one.environment, "OTEL_BSP_SCHEDULE_DELAY": "50"}, ops=ops, log=log, directory=path)
            )
        envoy = await stack.enter_async_context(envoy_before([brain], [memory], path))
        key = (path / "keys" / "secrets" / "dev.key").read_text().strip()
        yield Composed(found, running["memory"], running["brain"], envoy, collector, stores, key)
        await stack.aclose()
        assert [0, 0] == [running["memory"].code, running["brain"].code]


async def test_the_doctor_finds_nothing_wrong_inside_of_the_brains_container(composed: Composed) -> None:
    told = await composed.soma("doctor")
    assert 0 == told.code, told.out + told.err


async def test_the_health_checks_pass(composed: Composed) -> None:
    for name in ("memory", "brain"):
        kind, _, *arguments = composed.services[name].health
        told = await run(sys.executable, *arguments)
        assert ("CMD", 0) == (kind, told.code), told.err


async def test_what_is_remembered_through_envoy_is_recalled_and_traced(composed: Composed) -> None:
    stored = await composed.soma("remember", "Ada prefers tea", SOMA_TARGET=composed.envoy)
    assert stored.out.startswith("stored"), stored.err
    recalled = await composed.soma("recall", "what does Ada drink?", SOMA_TARGET=composed.envoy)
    assert "Ada prefers tea" in recalled.out, recalled.err
    tenants = await composed.soma("tenant", "list", SOMA_MEMORY_TARGET=composed.envoy)
    assert "dev" in tenants.out, tenants.err
    async with asyncio.timeout(20):
        both = {"soma-brain-server", "soma-memory-server"}
        while {span.service for span in composed.collector.spans} != both:  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.05)


async def posted(composed: Composed, rpc: str, body: object, *, key: str) -> tuple[int, Any]:
    """Status and document of an rpc called as JSON."""

    def post() -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://{composed.envoy}/soma.memory.v1.MemoryService/{rpc}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read() or b"null")

    return await asyncio.to_thread(post)


async def test_envoy_takes_json_and_answers_in_it(composed: Composed) -> None:
    status, stored = await posted(
        composed, "Remember", {"memory": {"key": "json", "text": "Ada prefers tea"}}, key=composed.key
    )
    assert (200, "DURABILITY_STORED") == (status, stored["durability"])
    status, read = await posted(composed, "Get", {"target": {"key": {"key": "json"}}}, key=composed.key)
    assert (200, "Ada prefers tea") == (status, read["memory"]["text"]), read
    status, frames = await posted(composed, "Recall", {"text": "what does Ada drink?"}, key=composed.key)
    assert (200, "summary") == (status, next(iter(frames[-1])))
    status, told = await posted(composed, "Get", {"target": {"memory_id": "x"}}, key=composed.key)
    reasons = [detail.get("reason") for detail in told["details"]]
    fields = [one["field"] for detail in told["details"] for one in detail.get("field_violations", [])]
    assert (400, True, ["target.memory_id"]) == (status, "FIELD_VIOLATION" in reasons, fields), told
    status, told = await posted(composed, "Get", {}, key="soma_wrong000_" + "w" * 40)
    assert (401, "CREDENTIALS_INVALID") == (status, told["details"][0]["reason"]), told


@pytest.mark.parametrize("store", ["postgres", "redis", "milvus"])
async def test_one_grpcurl_call_names_a_killed_store_within_two_seconds(composed: Composed, store: str) -> None:
    child = composed.stores.children[store]
    await child.kill()
    await child.stop()  # nobody starts it again
    try:
        asked = [str(tool("grpcurl")), "-plaintext", "-max-time", "2", "-H", f"authorization: Bearer {composed.key}"]
        told = await run(*asked, composed.envoy, "soma.admin.v1.OperatorService/GetComponents")
    finally:
        await child.start()
    assert 0 == told.code, told.err
    states = {one["name"]: one["state"] for one in told.document["components"]}
    assert "COMPONENT_STATE_DOWN" == states[f"memory/{store}"], states


async def test_every_metric_that_alerts_and_dashboard_name_is_exposed(composed: Composed) -> None:
    exposed = set()
    for server in (composed.memory, composed.brain):
        status, text = await server.page("/metrics")
        assert 200 == status
        exposed |= {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    files = [DEPLOY / "prometheus" / "alerts.yaml", DEPLOY / "grafana" / "dashboards" / "soma.json"]
    named = {name for file in files for name in _METRIC.findall(file.read_text())}
    # A counter's family is exposed without `_total` by some readers and with it by Prometheus itself.
    missing = {name for name in named if name not in exposed and _SERIES.sub("", name) not in exposed}
    assert set() == missing


def test_every_variable_that_the_files_set_is_a_setting() -> None:
    from brain_server.settings import BrainSettings
    from memory_server.settings import MemorySettings

    known = {
        field.validation_alias or f"SOMA_{name}".upper()
        for settings in (BrainSettings, MemorySettings)
        for name, field in settings.model_fields.items()
    }
    known |= {"SOMA_CACHE", "SOMA_HOME", "SOMA_IMAGE", "SOMA_KEY", "SOMA_TARGET", "SOMA_MEMORY_TARGET", "SOMA_TENANT"}
    known |= {"SOMA_POSTGRES_PASSWORD"}
    unknown = {
        f"{file.relative_to(DEPLOY)}: {name}"
        for file in sorted(DEPLOY.rglob("*"))
        if file.is_file() and "embedded" not in file.parts and file.suffix in ("", ".yaml", ".tpl", ".example")
        for name in re.findall(r"\bSOMA_[A-Z0-9_]+\b", file.read_text())
        if name not in known
    }
    assert set() == unknown


def test_the_dockerfile_copies_only_what_the_context_lets_in() -> None:
    root = DEPLOY.parent
    allowed = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [] == [name for name in allowed if not (root / name).exists()]
    places = [root / name for name in allowed]
    links = [link for place in places if place.is_dir() for link in place.rglob("*") if link.is_symlink()]
    assert [] == [link for link in links if not any(link.resolve().is_relative_to(place) for place in places)]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    named = [name for line in copied for name in line.split() if name != "."]
    assert [] == [name for name in named if name not in allowed]


def test_envoy_takes_the_configuration_as_it_is_shipped(tmp_path: Path) -> None:
    import json
    import subprocess

    from tests.support.envoy import envoy_program, shipped

    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(shipped()))
    checked = subprocess.run([envoy_program(), "--mode", "validate", "-c", config], capture_output=True, text=True)
    assert 0 == checked.returncode, checked.stderr
