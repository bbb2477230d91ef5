"""A brain with personas and a language model: its file is read again, and the model never holds a context up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from soma.memory.v1 import memory_pb2
from tests.integration.brain.agents import Mind
from tests.support.brains import brain_beside, key_of
from tests.support.rerank_endpoint import endpoint
from tests.support.stack import Agent, Office

pytestmark = [pytest.mark.stores, pytest.mark.processes]

LONG = "The lighthouse keeper kept a diary. On Monday the lamp failed and he ordered a new one from Oslo. " * 30


def personas(section: str) -> str:
    return f"defaults: {{categories: [{{name: {section}, kinds: [semantic]}}]}}"


def says(text: str) -> object:
    return {"choices": [{"message": {"content": text}}]}


async def test_personas_are_read_again_and_a_model_shortens_only_what_it_can_in_time(
    office: Office, tmp_path: Path
) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text(personas("Lighthouses"))
    agent = await office.agent()
    stored = await agent.remember(LONG, kind=memory_pb2.KIND_SEMANTIC)
    answers: list[tuple[int, object]] = [(200, says("A lamp came from Oslo."))]
    seen: list[dict[str, Any]] = []
    async with endpoint(lambda _: answers[-1], seen) as url:
        settings = {
            "SOMA_TENANTS_FILE": str(file),
            "SOMA_SUMMARISER_BASE_URL": url.removesuffix("/rerank"),
            "SOMA_SUMMARISER_MODEL": "scripted",
            "SOMA_EMBEDDER": "hashing",
            "SOMA_TESTING": "1",
        }
        async with brain_beside(office.stack, settings=settings) as brain:
            mind = Mind(brain.channel, Agent(brain.channel, key_of(agent), agent.tenant), "")
            (section,), summary = await mind.assemble("who ordered a lamp?")
            assert ("Lighthouses", True) == (section.name, section.lines[0].summarised)
            assert section.text.startswith("- A lamp came from Oslo. [m:")
            assert ([stored.memory.memory_id], 1) == (list(section.memory_ids), summary.summarised)
            assert "who ordered a lamp?" in seen[0]["body"]["messages"][-1]["content"]

            answers.append((500, {"error": "overloaded"}))
            (section,), _ = await mind.assemble("who ordered a lamp?")
            assert "Oslo" in section.text
            assert "A lamp came" not in section.text, "its own words, without the model"

            file.write_text(personas("Lamps"))
            async with asyncio.timeout(20):
                while "Lamps" != (await mind.assemble("who ordered a lamp?"))[0][0].name:  # noqa: ASYNC110 - a file
                    await asyncio.sleep(0.05)
            file.write_text("defaults: [nonsense")
            assert "Lamps" == (await mind.assemble("who ordered a lamp?"))[0][0].name


async def test_a_silent_model_costs_no_more_than_its_share_of_the_deadline(office: Office) -> None:
    agent = await office.agent()
    await agent.remember(LONG, kind=memory_pb2.KIND_SEMANTIC)
    heard = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        settings = {
            "SOMA_SUMMARISER_BASE_URL": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1",
            "SOMA_SUMMARISER_MODEL": "silent",
            "SOMA_EMBEDDER": "hashing",
            "SOMA_TESTING": "1",
        }
        async with brain_beside(office.stack, settings=settings) as brain:
            mind = Mind(brain.channel, Agent(brain.channel, key_of(agent), agent.tenant), "")
            (section,), summary = await mind.assemble("who ordered a lamp?", timeout_s=4.0)
    assert heard.is_set()
    assert (True, False) == (section.lines[0].summarised, summary.degraded)
    assert summary.duration.ToSeconds() < 4
