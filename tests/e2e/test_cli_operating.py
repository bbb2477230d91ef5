"""outbox, breaker, index, top and drain, as an operator uses them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys

import pytest

from tests.e2e.console import Console, run
from tests.e2e.test_cli import tenant_console
from tests.support.brains import memory_away, until_delivered
from tests.support.stack import Agent, Office

pytestmark = [pytest.mark.processes]


def operator(office: Office) -> Console:
    return Console(
        {
            "SOMA_TARGET": office.stack.brain_address,
            "SOMA_MEMORY_TARGET": office.stack.memory_address,
            "SOMA_KEY": office.stack.development_key,
        }
    )


async def test_the_index_is_compared_rebuilt_and_its_jobs_are_listed(office: Office) -> None:
    tenant = await tenant_console(office)
    assert (await tenant.soma("remember", "Ada prefers tea")).code == 0
    at = operator(office)
    compared = await at.soma("index", "reconcile", "--no-repair", "-o", "json")
    assert (0, "INDEX_JOB_STATE_DONE") == (compared.code, compared.document["state"]), compared.err
    tried = await at.soma("index", "rebuild", "--poisoned")
    assert (0, True) == (tried.code, tried.out.startswith("rebuild done")), tried.err
    jobs = await at.soma("index", "jobs", "-o", "json")
    assert {compared.document["job_id"]} <= {job["job_id"] for job in jobs.lines}
    assert (0, "") == ((await at.soma("index", "poisoned", "-o", "json")).code, tried.err)
    refused = await tenant.soma("index", "rebuild")
    assert (4, True) == (refused.code, "SCOPE_MISSING" in refused.err), refused.err


async def test_what_waits_and_what_broke_is_seen_during_an_outage_and_after_it(office: Office) -> None:
    at = operator(office)
    before = (await at.soma("outbox", "status", "-o", "json")).document
    async with memory_away(office.stack):
        queued = await at.soma("remember", "written during the outage")
        assert queued.out.startswith("queued"), queued.err
        status = await at.soma("outbox", "status", "-o", "json")
        assert "1" == status.document["pending"], status.err
        (told,) = status.document["tenants"]
        assert ("dev", "1", True) == (told["tenant"], told["pending"], int(told["pending_bytes"]) > 0)
        breakers = await at.soma("breaker", "list", "--not-closed", "-o", "json")
        assert breakers.code == 0, breakers.err
        seen = await at.soma("top", "--once", "-o", "json")
        assert (0, "1") == (seen.code, seen.document["brain"]["outbox"]["pending"]), seen.err
        assert "nothing answers" in seen.document["memory_server"]["error"]
    reset = await at.soma("breaker", "reset")
    assert reset.code == 0, reset.err
    assert (0, "") == ((await at.soma("outbox", "dead", "-o", "json")).code, (await at.soma("outbox", "dead")).err)

    missing = await at.soma("outbox", "replay", "no-such-entry", "-o", "json")
    assert missing.code == 1, missing.out
    assert ["no-such-entry"] == missing.document["missing_entry_ids"]
    discarded = await at.soma("outbox", "discard", "--all", "--tenant", "dev", "--cause", "a test")
    assert (0, "discarded 0\n") == (discarded.code, discarded.out), discarded.err

    agent = Agent(office.brain, office.stack.development_key)
    await until_delivered(agent, office.admin_metadata)
    after = await at.soma("outbox", "status")
    assert re.search(rf"^delivered +{int(before['delivered']) + 1}$", after.out, re.MULTILINE), after.out
    whole = await at.soma("top", "--once")
    assert (0, True, True) == (whole.code, "postgres" in whole.out, "all closed" in whole.out), whole.out + whole.err


async def test_a_drained_brain_goes_down_and_another_takes_its_place(office: Office) -> None:
    at = operator(office)
    refused = await at.soma("drain", "--yes", "--grace", "1h", "-o", "json")
    assert (1, "grace") == (refused.code, json.loads(refused.err)["error"]["violations"][0]["field"])
    before = office.stack.pids["brain"]
    drained = await at.soma("drain", "--yes", "--grace", "1", "-o", "json")
    assert (0, 0) == (drained.code, drained.document["calls_in_flight"]), drained.err
    assert "deadline_time" in drained.document
    async with asyncio.timeout(60):
        while office.stack.pids["brain"] == before:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    await office.stack.ready("brain")
    await office.stack.connected()


async def test_a_drain_that_is_not_confirmed_does_nothing(office: Office) -> None:
    at = operator(office)
    told = await at.soma("drain", given="n\n")
    assert told.code == 1
    assert (await at.soma("whoami")).code == 0


async def test_nothing_that_answers_is_unavailable() -> None:
    ended = await Console(
        {"SOMA_KEY": "soma_x_y", "SOMA_TARGET": "127.0.0.1:1", "SOMA_MEMORY_TARGET": "127.0.0.1:1"}
    ).soma("top", "--once", "-o", "json")
    assert 3 == ended.code
    assert {"error", "target"} == set(json.loads(ended.out)["brain"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [("soma rec", "recall"), ("soma wm ob", "observe"), ("soma outbox re", "replay"), ("soma index reb", "rebuild")],
)
def test_the_shell_completes_commands(words: str, expected: str) -> None:
    environment = {
        "_SOMA_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(sys.path),
    }
    told = subprocess.run([sys.executable, "-m", "soma_client.cli"], env=environment, capture_output=True, text=True)
    assert [expected] == told.stdout.split(), told.stderr


async def test_completion_is_shown_for_every_shell() -> None:
    for shell in ("bash", "zsh", "fish"):
        told = await run(sys.executable, "-m", "soma_client.cli", "--show-completion", shell)
        assert (0, True) == (told.code, "_SOMA_COMPLETE" in told.out), told.err
