"""`soma graph` against the running stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.console import Console
from tests.integration.graph.agents import NOWHERE, Linker, linker
from tests.support.stack import Office

pytestmark = [pytest.mark.processes]


def console(office: Office, agent: Linker) -> Console:
    key = dict(agent.agent.metadata)["authorization"].removeprefix("Bearer ")
    return Console({"SOMA_TARGET": office.stack.brain_address, "SOMA_KEY": key})


@pytest.mark.parametrize("suffix", ["svg", "html", "dot"])
async def test_a_neighbourhood_is_drawn_into_a_file(office: Office, tmp_path: Path, suffix: str) -> None:
    agent = await linker(office, "brain")
    ada, bob, eve = await agent.remember("Ada", "Bob", "Eve")
    await agent.link(ada, bob, "knows")
    await agent.link(bob, eve, "knows")
    out = tmp_path / f"graph.{suffix}"
    shown = await console(office, agent).soma("graph", "show", ada, "--radius", "2", "--out", str(out))
    assert (0, f"{out}  3 memories, 2 links\n") == (shown.code, shown.out), shown.err
    drawn = out.read_text()
    assert all(text in drawn for text in ("Ada", "Bob", "Eve", "knows"))


async def test_a_path_is_printed_as_a_chain(office: Office) -> None:
    agent = await linker(office, "brain")
    ada, bob, eve = await agent.remember("Ada", "Bob", "Eve")
    await agent.link(ada, bob, "knows", strength=0.5)
    await agent.link(eve, bob, "trusts")
    at = console(office, agent)
    printed = await at.soma("graph", "path", ada, eve)
    assert printed.out.splitlines() == [
        f"Ada  ({ada})",
        "  ── knows 0.50 ─▶",
        f"Bob  ({bob})",
        "  ◀─ trusts 1.00 ──",
        f"Eve  ({eve})",
        "cost 0.693",
    ], printed.err
    found = await at.soma("graph", "path", ada, eve, "-o", "json")
    assert [[ada, bob, eve]] == [path["memory_ids"] for path in found.document["paths"]]
    assert "no path\n" == (await at.soma("graph", "path", ada, eve, "--relation", "hates")).out


async def test_an_unknown_memory_and_an_unknown_format_are_refused(office: Office) -> None:
    agent = await linker(office, "brain")
    at = console(office, agent)
    missing = await at.soma("graph", "show", NOWHERE)
    wrong = await at.soma("graph", "show", NOWHERE, "--out", "graph.png")
    assert (1, 2) == (missing.code, wrong.code)
    assert "must end in .svg, .html, .dot" in " ".join(wrong.err.split())
