"""Replacing the key that a brain's file is encrypted with."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from brain_server.stores.sqlite.keyring import default_key_file
from soma_embedded.stack import EmbeddedStack
from tests.integration.brain.agents import Mind
from tests.support.brains import brain_beside, key_of
from tests.support.stack import Agent, Office

pytestmark = [pytest.mark.stores, pytest.mark.processes]


async def rotated(stack: EmbeddedStack, data_dir: Path, word: str = "rotate-key") -> tuple[int | None, str]:
    """Run the command as an operator would; return how it ended and what it said."""
    environment = {
        **os.environ,
        "SOMA_BRAIN_MEMORY_TARGET": stack.memory_address,
        "SOMA_DATA_DIR": str(data_dir),
        "SOMA_SERVICE_CREDENTIAL_FILE": str(stack.directory.place("secrets") / "brain.key"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brain_server", word),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_a_stopped_brain_gets_a_new_key_and_keeps_what_it_holds(office: Office, tmp_path: Path) -> None:
    agent = await office.agent()
    async with brain_beside(office.stack, settings={"SOMA_EMBEDDER": "hashing", "SOMA_TESTING": "1"}) as brain:
        data_dir = brain.directory.place("brain")
        mind = Mind(brain.channel, Agent(brain.channel, key_of(agent), agent.tenant), "kept")
        await mind.observe("kept through the rotation")
        before = json.loads(default_key_file(data_dir).read_text())
        code, said = await rotated(office.stack, data_dir)
        assert (2, True) == (code, "brain" in said), f"a living brain keeps its key: {said}"
        await brain.child.stop()
        code, said = await rotated(office.stack, data_dir)
        assert 0 == code, said
        after = json.loads(default_key_file(data_dir).read_text())
        assert after["current"] in said
        assert before["keys"].keys().isdisjoint(after["keys"])
        await brain.child.start()
        assert ["kept through the rotation"] == [item.text for item in await mind.items()]
    code, said = await rotated(office.stack, tmp_path / "nothing")
    assert (2, True) == (code, "SOMA_DATA_DIR" in said)
    assert 2 == (await rotated(office.stack, tmp_path, "rotate"))[0]
