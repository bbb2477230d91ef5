"""`soma mcp` as a program that speaks the Model Context Protocol sees it: the SDK's own client, real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
import psutil
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from soma_client import SomaClient
from soma_client.tool_server.callers import Callers
from soma_client.tool_server.serving import is_loopback, tool_server
from tests.support.brains import key_of
from tests.support.stack import Agent, Office

pytestmark = [pytest.mark.processes]

COMMAND = [sys.executable, "-m", "soma_client.cli", "mcp"]
TOOLS = ["graph_neighbors", "memory_context", "memory_forget", "memory_load", "memory_save", "memory_search"]


def environment(office: Office, key: str, tenant: str = "") -> dict[str, str]:
    """What the program is started with."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SOMA_")}
    named = {"SOMA_TARGET": office.stack.brain_address, "SOMA_KEY": key, "SOMA_TENANT": tenant}
    return {**kept, "SOMA_HOME": "/nonexistent", **{name: value for name, value in named.items() if value}}


@asynccontextmanager
async def in_process(
    office: Office, agent: Agent, target: str = "", *, serves_without_key: bool = True
) -> AsyncIterator[Client]:
    """A client of a tool server in this process, for what needs no process of its own."""
    target = target or office.stack.brain_address
    async with (
        SomaClient.connect(target, key=key_of(agent), tenant=agent.tenant) as own,
        Client(tool_server(Callers(own, serves_without_key=serves_without_key)), read_timeout_seconds=60) as client,
    ):
        yield client


def stdio(office: Office, agent: Agent) -> Client:
    """A client that starts the tool server of an agent and talks to it over stdin and stdout."""
    started = StdioServerParameters(
        command=COMMAND[0], args=COMMAND[1:], env=environment(office, key_of(agent), agent.tenant)
    )
    return Client(started, read_timeout_seconds=60)


@contextmanager
def listening(office: Office, key: str) -> Iterator[str]:
    """A tool server over HTTP; its URL."""
    process = subprocess.Popen(
        [*COMMAND, "--http", "127.0.0.1:0"], env=environment(office, key), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        told = process.stderr.readline()
        assert "tools at http://" in told, told
        yield told.split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=20)


async def answered(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool answers; fails the test if it is an error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """What a model reads when a tool fails."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    return " ".join(part.text for part in result.content if part.type == "text")


async def test_what_one_process_saves_another_finds_after_kill_9_of_everything_between(
    office: Office,
) -> None:
    agent = await office.agent()
    async with stdio(office, agent) as client:
        saved = await answered(
            client,
            "memory_save",
            key="user.drink",
            payload={"text": "Mara drinks oat milk in her coffee", "sure": True},
        )
        children = [child for child in psutil.Process().children(recursive=True) if child.cmdline()[-1:] == ["mcp"]]
        for child in children:
            child.send_signal(signal.SIGKILL)
        assert children
    await asyncio.gather(office.stack.kill("brain"), office.stack.kill("memory"))
    await asyncio.gather(office.stack.ready("brain"), office.stack.ready("memory"))
    await office.stack.connected()

    async with stdio(office, agent) as client:
        loaded = await answered(client, "memory_load", key="user.drink")
        found = await answered(client, "memory_search", text="what milk does Mara take?")
    assert {"text": "Mara drinks oat milk in her coffee", "sure": True} == loaded["memory"]["payload"]
    assert [saved["memory_id"]] == [memory["memory_id"] for memory in found["memories"]]


async def test_the_tools_do_what_they_say(office: Office) -> None:
    agent = await office.agent()
    async with stdio(office, agent) as client:
        for key, text in (
            ("trip.train", "The night train to Vienna leaves from platform nine"),
            ("trip.hotel", "The hotel in Vienna is the Golden Goose"),
            ("garden", "Roses need water every second day"),
        ):
            first = await answered(client, "memory_save", key=key, payload=text)
            again = await answered(client, "memory_save", key=key, payload=text)
            assert (True, False, 1) == (first["created"], again["created"], again["version"])
        found = await answered(client, "memory_search", text="where does the train leave?", limit=1)
        assert ["trip.train"] == [memory["key"] for memory in found["memories"]]
        listed = await answered(client, "memory_search", key_prefix="trip.")
        assert ["trip.hotel", "trip.train"] == [memory["key"] for memory in listed["memories"]]
        cut = await answered(client, "memory_search", key_prefix="trip.", limit=1)
        assert (1, True) == (len(cut["memories"]), "more than these 1" in cut["note"])

        hotel, train = (memory["memory_id"] for memory in listed["memories"])
        async with SomaClient.connect(office.stack.brain_address, key=key_of(agent), tenant=agent.tenant) as soma:
            await soma.link(train, hotel, "references")
        near = await answered(client, "graph_neighbors", key="trip.train", relations=["references"])
        assert [("trip.hotel", 1, f"{train} --references--> {hotel}")] == [
            (one["memory"]["key"], one["distance"], one["link"]) for one in near["neighbors"]
        ]

        context = await answered(client, "memory_context", conversation="When do I travel to Vienna?", token_budget=200)
        assert "platform nine" in context["context"]
        assert 0 < context["tokens"] <= 200

        await answered(client, "memory_forget", key="garden")
        gone = await answered(client, "memory_load", key="garden")
        assert (False, True) == (gone["found"], "memory_search" in gone["note"])


async def test_the_tools_say_what_they_take_and_when_to_use_them(office: Office) -> None:
    async with in_process(office, await office.agent()) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert TOOLS == sorted(tools)
    for tool in tools.values():
        assert re.search(r"Use (it|memory_search)", tool.description or ""), tool.name
        assert tool.annotations is not None
        assert tool.output_schema is not None
        described = tool.input_schema["properties"]
        assert [] == [name for name, schema in described.items() if "description" not in schema]
        assert "ctx" not in described
    assert ["key", "payload"] == tools["memory_save"].input_schema["required"]
    reading = {name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint}
    assert {"graph_neighbors", "memory_load", "memory_search"} == reading


async def test_errors_say_what_to_do(office: Office) -> None:
    agent = await office.agent()
    async with in_process(office, agent) as client:
        assert "give a text, a key_prefix, or both. Correct" in await refused(client, "memory_search")
        assert "memory_search" in await refused(client, "memory_forget", key="nobody")
        assert "exactly one of id, key" in await refused(client, "graph_neighbors")
        assert "relevance" in await refused(client, "memory_save", key="k", payload="x", relevance=2)
        too_long = await refused(client, "memory_save", key="k" * 300, payload="x")
        assert "memory.key: " in too_long
        assert "Correct what is named" in too_long
        assert "Write the character in full" in await refused(client, "memory_load", key="\ud800")
    stranger = Agent(office.brain, "soma_0000000000000000_wrong", agent.tenant)
    async with in_process(office, stranger) as client:
        assert "Tell the user that the Soma key" in await refused(client, "memory_load", key="k")
    async with in_process(office, agent, "127.0.0.1:1") as client:
        assert "call again with the same arguments" in await refused(client, "memory_load", key="k")


async def test_over_http_a_request_brings_its_own_key(office: Office) -> None:
    agent, other = await office.agent(), await office.agent()
    bearer = {"authorization": f"Bearer {key_of(other)}"}
    with listening(office, key_of(agent)) as url:
        async with Client(url, read_timeout_seconds=60) as client:
            await answered(client, "memory_save", key="mine", payload="Of the server's own key")
        async with (
            httpx2.AsyncClient(headers=bearer) as http,
            Client(streamable_http_client(url, http_client=http), read_timeout_seconds=60) as client,
        ):
            assert not (await answered(client, "memory_load", key="mine"))["found"]
            await answered(client, "memory_save", key="theirs", payload="Of the other's key")
        async with (
            httpx2.AsyncClient(headers={"authorization": "Basic bWluZTptaW5l"}) as http,
            Client(streamable_http_client(url, http_client=http), read_timeout_seconds=60) as client,
        ):
            assert "needs a Soma key with each request" in await refused(client, "memory_load", key="mine")
        async with Client(url, read_timeout_seconds=60) as client:
            assert (await answered(client, "memory_load", key="mine"))["found"]
            assert not (await answered(client, "memory_load", key="theirs"))["found"]
        async with httpx2.AsyncClient() as page:
            # A page that had its own name resolved to this machine.
            rebound = await page.post(url, headers={"host": "elsewhere.example"}, json={})
            assert 421 == rebound.status_code


async def test_where_strangers_can_reach_it_a_key_is_needed(office: Office) -> None:
    reached = {"127.0.0.1": True, "localhost": True, "::1": True, "0.0.0.0": False, "::": False, "soma.local": False}
    assert reached == {host: is_loopback(host) for host in reached}
    async with in_process(office, await office.agent(), serves_without_key=False) as client:
        assert "needs a Soma key with each request" in await refused(client, "memory_load", key="k")


def test_without_a_key_the_program_says_so(office: Office) -> None:
    done = subprocess.run(COMMAND, env=environment(office, ""), capture_output=True, text=True, timeout=60)
    assert (4, "") == (done.returncode, done.stdout)
    assert "SOMA_KEY" in done.stderr
