"""The example agent as a process of its own, against the running stack and a scripted model that speaks over HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from soma.memory.v1 import memory_service_pb2 as pb
from tests.e2e.console import Ended, run
from tests.integration.brain.agents import Mind
from tests.support.brains import key_of
from tests.support.rerank_endpoint import endpoint
from tests.support.stack import Agent, Office

pytestmark = pytest.mark.stores


def script(body: dict[str, Any]) -> tuple[int, object]:
    """What the model says: it knows only what stands in its prompt."""
    system, last = body["messages"][0]["content"], body["messages"][-1]["content"]
    facts = []
    if "ill" in last:
        answer = "I shall keep that in mind."
        facts = [{"text": "Ada is allergic to peanuts", "key": "user.allergy"}]
    elif "outgrown" in last:
        answer, facts = "Good news.", [{"text": "Ada has outgrown her allergy to peanuts", "key": "user.allergy"}]
    elif "cook" in last:
        answer = "Anything without peanuts." if "is allergic to peanuts [m:" in system else "Peanut soup."
    else:
        return 200, {"choices": [{"message": {"content": "I forgot the form, sorry."}}]}
    content = json.dumps({"answer": answer, "facts": facts})
    return 200, {"choices": [{"message": {"content": content}}]}


class Talk:
    """Runs the example."""

    def __init__(self, office: Office, model_url: str) -> None:
        self.office = office
        self.model_url = model_url

    async def say(self, agent: Agent, session: str, *messages: str) -> Ended:
        """Hold a conversation."""
        arguments = ("--model-url", self.model_url, "--model", "scripted", "--persona", "cook", "--session", session)
        environment = {"SOMA_TARGET": self.office.stack.brain_address, "SOMA_KEY": key_of(agent)}
        given = "".join(f"{message}\n" for message in messages)
        return await run(sys.executable, "examples/agent_loop.py", *arguments, given=given, **environment)


@pytest_asyncio.fixture(loop_scope="session")
async def talk(office: Office) -> AsyncIterator[Talk]:
    async with endpoint(script, []) as url:
        yield Talk(office, url.removesuffix("/rerank"))


async def test_what_was_said_in_one_conversation_is_known_in_the_next(office: Office, talk: Talk) -> None:
    agent = await office.agent()
    first = await talk.say(agent, "monday", "I am Ada, and peanuts make me ill.", "The weather is fine.")
    assert ["I shall keep that in mind.", "I forgot the form, sorry."] == first.out.splitlines(), first.err
    second = await talk.say(agent, "tuesday", "What could I cook for Ada tonight?")
    assert "Anything without peanuts.\n" == second.out, second.err
    stranger = await talk.say(await office.agent(), "tuesday", "What could I cook for Ada tonight?")
    assert "Peanut soup.\n" == stranger.out, "the script answers by what stands in its prompt"

    items = [item.text for item in await Mind(office.brain, agent, "monday").items()]
    assert ["I am Ada, and peanuts make me ill.", "I shall keep that in mind."] == items[:2]

    assert 0 == (await talk.say(agent, "monday", "I have outgrown it.")).code
    page = await agent.memory.List(pb.ListRequest(), metadata=agent.metadata, timeout=10)
    facts = [(memory.key, memory.text, memory.version, memory.persona_id) for memory in page.memories if memory.key]
    assert [("user.allergy", "Ada has outgrown her allergy to peanuts", 2, "cook")] == facts
    third = await talk.say(agent, "wednesday", "What could I cook for Ada tonight?")
    assert "Peanut soup.\n" == third.out
