"""What README.md shows, runs."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.e2e.console import ROOT, Console
from tests.support.stack import Office

pytestmark = [pytest.mark.processes]

README = (ROOT / "README.md").read_text()


def shown(beginning: str) -> list[str]:
    """Lines of code blocks that start so."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(beginning)]


async def test_every_soma_command_of_the_readme_runs(office: Office) -> None:
    agent = await office.agent()
    console = Console(
        {
            "SOMA_TARGET": office.stack.brain_address,
            "SOMA_MEMORY_TARGET": office.stack.memory_address,
            "SOMA_KEY": dict(agent.metadata)["authorization"].removeprefix("Bearer "),
        }
    )

    ended = {line: await console.soma(*shlex.split(line)[1:]) for line in shown("soma ")}

    assert len(ended) == 3
    assert {line: each.err for line, each in ended.items() if each.code} == {}


def test_every_file_that_the_readme_links_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)

    assert len(links) >= 6
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_names_as_many_memories_as_the_sample_has() -> None:
    lines = sum(len(file.read_text().splitlines()) for file in (ROOT / "examples" / "sample").glob("*.jsonl"))

    assert f"imports {lines} memories" in README
