"""The other pages: what they show is run, or checked against the program's own help where running is too heavy."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from soma_client import SomaClient
from soma_embedded.stack import EmbeddedStack
from tests.support.documents import ROOT, Shell, Step, steps

DOCS = ROOT / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if page.name != "grpcurl.md"]
HEAVY = [step for page in PAGES for step in steps(page) if step.help_only]
_IN_TREE = re.compile(r"`((?:tests|bench|examples|deploy|conf|protos|clients|scripts)/[\w./-]+)`")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.processes
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(not step.help_only for step in steps(page))], ids=lambda page: page.name
)
async def test_every_command_of_a_page_runs_and_prints_what_it_shows(page: Path, documented: EmbeddedStack) -> None:
    # A tenant of its own: what another page has stored must not be recalled by this one.
    async with SomaClient.connect(documented.memory_address, key=documented.development_key) as soma:
        tenant = f"page-{page.stem}"
        await soma.tenants.create(tenant)
        key = (await soma.tenants.create_key(tenant, scopes=["*"])).bearer
    await asyncio.to_thread(_follow, page, documented, key)


def _follow(page: Path, documented: EmbeddedStack, key: str) -> None:
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SOMA_")},
        "HOME": str(documented.directory.root.parent),
        "PATH": binaries,
        "COLUMNS": "200",
        "SOMA_TARGET": documented.brain_address,
        "SOMA_KEY": key,
        "SOMA_MEMORY_TARGET": documented.memory_address,
    }
    with Shell(ROOT, environment, {}) as shell:
        for step in steps(page):
            if not step.help_only:
                shell.follow(step)


@pytest.mark.parametrize("step", HEAVY, ids=[f"{step.place} {step.command}" for step in HEAVY])
def test_a_command_too_heavy_to_run_is_known_to_its_help(step: Step) -> None:
    words = shlex.split(step.command)
    if words[0] == "./dev":
        listed = subprocess.run([sys.executable, ROOT / "dev", "help"], capture_output=True, text=True).stdout
        assert re.search(rf"^\./dev {words[1]}\b", listed, re.MULTILINE), f"{step.place}: {words[1]} is no verb"
        if words[1] == "bench":
            assert (ROOT / "bench" / f"{words[2]}.py").exists(), f"{step.place}: no such measurement"
        return
    assert words[0] == "soma", f"{step.place}: only soma and ./dev are checked by their help"
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    verbs = words[1 : next((at for at, word in enumerate(words) if word.startswith("-")), len(words))]
    asked = [sys.executable, "-m", "soma_client.cli", *verbs, "--help"]
    told = subprocess.run(asked, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert told.returncode == 0, f"{step.place}: {told.stderr}"
    assert [] == [option for option in options if option not in told.stdout], step.place


@pytest.mark.parametrize("page", sorted(DOCS.glob("**/*.md")), ids=lambda page: page.name)
def test_what_a_page_points_at_is_there(page: Path) -> None:
    text = page.read_text()
    missing = [target for target in _LINK.findall(text) if not (page.parent / target).exists()]
    missing += [path for path in _IN_TREE.findall(text) if not (ROOT / path).exists()]
    assert [] == missing
