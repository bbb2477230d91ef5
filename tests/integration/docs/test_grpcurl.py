"""docs/grpcurl.md against the real grpcurl: each recipe runs, and no served rpc lacks one."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import pytest

from soma_embedded.stack import EmbeddedStack
from tests.support.documents import ROOT, Shell, Step, steps
from tests.support.tools import tool

PAGE = ROOT / "docs" / "grpcurl.md"
_CALLED = re.compile(r"\$(BRAIN|MEMORY)\s+(soma\.[\w.]+)/(\w+)")

pytestmark = [pytest.mark.processes]


@pytest.fixture(scope="module")
def grpcurl() -> Path:
    """The real one."""
    return tool("grpcurl")


def recipes() -> dict[tuple[str, str], list[Step]]:
    """(service, rpc) to the steps that call it."""
    found: dict[tuple[str, str], list[Step]] = {}
    for step in steps(PAGE):
        for _, service, rpc in _CALLED.findall(step.command):
            found.setdefault((service, rpc), []).append(step)
    return found


class Asked:
    """grpcurl with the development key, from outside the page."""

    def __init__(self, grpcurl: Path, stack: EmbeddedStack) -> None:
        self._command = [str(grpcurl), "-plaintext", "-H", f"authorization: Bearer {stack.development_key}"]
        self.servers = {"brain": stack.brain_address, "memory": stack.memory_address}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One run."""
        return subprocess.run([*self._command, *words], capture_output=True, text=True, timeout=60)

    def listed(self, *words: str) -> list[str]:
        """The lines of a run that must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def served(self) -> dict[tuple[str, str], list[str]]:
        """(service, rpc) of ours that a server advertises, to the servers."""
        found: dict[tuple[str, str], list[str]] = {}
        for server, address in self.servers.items():
            for service in self.listed(address, "list"):
                if service.startswith("soma."):
                    for method in self.listed(address, "list", service):
                        found.setdefault((service, method.rpartition(".")[2]), []).append(server)
        return found


def test_every_recipe_runs_and_prints_what_the_page_shows(
    grpcurl: Path, documented: EmbeddedStack, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "HOME": str(documented.directory.root.parent),
        "PATH": f"{grpcurl.parent}{os.pathsep}{os.environ['PATH']}",
    }
    addresses = {"127.0.0.1:9696": documented.brain_address, "127.0.0.1:9595": documented.memory_address}
    with Shell(tmp_path, environment, addresses) as shell:
        for step in steps(PAGE):
            shell.follow(step)


async def test_every_served_rpc_has_a_recipe(grpcurl: Path, documented: EmbeddedStack) -> None:
    await documented.connected()  # the recipes may have ended a server
    asked = Asked(grpcurl, documented)
    served = await asyncio.to_thread(asked.served)
    without = []
    for (service, rpc), servers in served.items():
        if (service, rpc) in recipes():
            continue
        for server in servers:
            # Of a served service an rpc may be left out; it then says so, and needs no recipe.
            answer = await asyncio.to_thread(
                asked.run, "-max-time", "5", "-d", "", asked.servers[server], f"{service}/{rpc}"
            )
            if "Code: Unimplemented" not in answer.stderr:
                without.append(f"{service}/{rpc} on {server}")
    assert [] == without


async def test_no_recipe_is_for_an_rpc_that_nobody_serves(grpcurl: Path, documented: EmbeddedStack) -> None:
    await documented.connected()
    served = await asyncio.to_thread(Asked(grpcurl, documented).served)
    assert set() == recipes().keys() - served.keys()
