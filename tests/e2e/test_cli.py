"""The command line against the running stack."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests.e2e.console import Console, run
from tests.support.stack import Office

pytestmark = [pytest.mark.processes]


def console(office: Office, key: str = "") -> Console:
    return Console(
        {
            "SOMA_TARGET": office.stack.brain_address,
            "SOMA_MEMORY_TARGET": office.stack.memory_address,
            "SOMA_KEY": key or office.stack.development_key,
        }
    )


async def tenant_console(office: Office) -> Console:
    agent = await office.agent()
    return console(office, dict(agent.metadata)["authorization"].removeprefix("Bearer "))


async def test_a_memory_is_remembered_read_recalled_listed_and_forgotten(office: Office) -> None:
    at = await tenant_console(office)

    stored = await at.soma("remember", "Ada drinks tea", "--key", "user.drink", "--tag", "hot", "-o", "json")
    assert stored.code == 0, stored.err
    assert (stored.document["durability"], stored.document["created"]) == ("STORED", True)
    memory_id = stored.document["memory"]["memory_id"]

    read = await at.soma("get", "--key", "user.drink", "--output", "json")
    assert (read.document["memory_id"], read.document["text"], read.document["tags"]) == (
        memory_id,
        "Ada drinks tea",
        ["hot"],
    )

    recalled = await at.soma("recall", "what does Ada drink?", "--explain", "--output", "json")
    assert [hit["memory"]["text"] for hit in recalled.document["hits"]] == ["Ada drinks tea"]
    legs = {leg["leg"] for leg in recalled.document["summary"]["legs"]}
    assert {"RECALL_LEG_DENSE", "RECALL_LEG_KEYWORD", "RECALL_LEG_OVERLAY"} <= legs

    assert (await at.soma("remember", "Ada drinks coffee", "--key", "user.drink")).code == 0
    versions = await at.soma("history", memory_id, "--output", "json")
    assert [version["text"] for version in versions.lines] == ["Ada drinks coffee", "Ada drinks tea"]
    listed = await at.soma("list", "--key-prefix", "user.", "--output", "json")
    assert [memory["text"] for memory in listed.lines] == ["Ada drinks coffee"]

    assert (await at.soma("forget", memory_id)).code == 0
    gone = await at.soma("get", memory_id, "--output", "json")
    assert (gone.code, gone.out) == (1, "")
    assert json.loads(gone.err)["error"]["reason"] == "MEMORY_NOT_FOUND"


async def test_tables_are_made_for_people(office: Office) -> None:
    at = await tenant_console(office)
    await at.soma("remember", "Ada drinks tea [hot]", "--actor", "Ada")

    explained = await at.soma("recall", "what does Ada drink?", "--explain")

    assert explained.code == 0, explained.err
    assert "Ada drinks tea [hot]" in explained.out
    assert re.search(r"^ dense +ran ", explained.out, re.MULTILINE)
    assert re.search(r"\d ms, 1 considered", explained.out)


async def test_a_wrong_field_is_named_with_its_path(office: Office) -> None:
    at = await tenant_console(office)

    refused = await at.soma("remember", "tea", "--payload", '{"a": NaN}', "--relevance", "2")

    assert refused.code == 1
    assert "reason  FIELD_VIOLATION" in refused.err
    assert "field   memory.payload_json:" in refused.err
    assert "field   memory.relevance: must be from 0 to 1" in refused.err


async def test_a_file_of_memories_is_stored_and_a_repetition_with_the_same_ids_is_not(office: Office) -> None:
    at = await tenant_console(office)
    lines = "".join(
        json.dumps({"memory_id": f"0190b6a0-7c1e-7000-8000-00000000000{number}", "text": f"note {number}"}) + "\n"
        for number in range(3)
    )

    first = await at.soma("remember", "--file", "-", "--output", "json", given=lines)
    again = await at.soma("remember", "--file", "-", "--output", "json", given=lines)

    assert first.document == again.document == {"stored": 3, "queued": 0, "refused": []}
    assert len((await at.soma("list", "--output", "json")).lines) == 3


async def test_tenants_and_keys_are_made_listed_and_revoked(office: Office) -> None:
    admin = console(office)

    assert (await admin.soma("tenant", "create", "cli-made", "--output", "json")).document["tenant"] == "cli-made"
    twice = await admin.soma("tenant", "create", "cli-made")
    assert (twice.code, "TENANT_EXISTS" in twice.err) == (1, True)
    tenants = (await admin.soma("tenant", "list", "--output", "json")).lines
    assert "cli-made" in {tenant["tenant"] for tenant in tenants}

    made = await admin.soma("key", "create", "cli-made", "--label", "test")
    bearer = made.out.strip()
    listed = (await admin.soma("key", "list", "cli-made", "--output", "json")).lines
    assert [key["label"] for key in listed] == ["test"]
    assert bearer not in json.dumps(listed)

    holder = console(office, bearer)
    assert (await holder.soma("whoami", "--output", "json")).document["tenant"] == "cli-made"
    assert (await admin.soma("key", "revoke", listed[0]["key_id"])).code == 0
    refused = await holder.soma("whoami", "--memory-server")
    assert (refused.code, "CREDENTIALS_INVALID" in refused.err) == (4, True)


async def test_a_foreign_tenant_is_refused_with_4(office: Office) -> None:
    at = await tenant_console(office)

    refused = await at.soma("get", "--key", "a", "--tenant", "dev")

    assert (refused.code, "TENANT_FORBIDDEN" in refused.err) == (4, True)


async def test_a_server_that_is_not_there_ends_with_3_and_the_way_out(office: Office) -> None:
    at = await tenant_console(office)

    lost = await at.soma("get", "--key", "a", "--target", "127.0.0.1:1", "--timeout", "0.5")

    assert lost.code == 3
    assert "nothing answers at 127.0.0.1:1" in lost.err
    assert "soma up" in lost.err


async def test_the_servers_tell_about_themselves(office: Office) -> None:
    admin = console(office)

    brain = (await admin.soma("info", "--output", "json")).document
    memory = (await admin.soma("info", "--memory-server", "--output", "json")).document
    assert (brain["role"], memory["role"]) == ("SERVER_ROLE_BRAIN", "SERVER_ROLE_MEMORY")
    components = (await admin.soma("components", "--memory-server", "--output", "json")).document["components"]
    assert {component["name"] for component in components} == {"postgres", "milvus", "redis"}
    healthy = await admin.soma("doctor")
    assert (healthy.code, "FAIL" in healthy.out) == (0, False), healthy.out
    assert healthy.out.count("ok  ") >= 6


async def test_the_indexer_rests_and_goes_on(office: Office) -> None:
    admin = console(office)

    try:
        assert "paused until" in (await admin.soma("index", "pause", "--for", "2m")).out
        assert (await admin.soma("index", "status", "--output", "json")).document["paused"] is True
        unwell = await admin.soma("doctor")
        assert (unwell.code, "soma index resume" in unwell.out) == (1, True)
    finally:
        assert (await admin.soma("index", "resume")).out == "running\n"
    assert (await admin.soma("index", "status", "--output", "json")).document["paused"] is False


async def test_the_quickstart_runs_as_it_stands(office: Office) -> None:
    agent = await office.agent()
    key = dict(agent.metadata)["authorization"].removeprefix("Bearer ")

    done = await run(sys.executable, "examples/quickstart.py", SOMA_TARGET=office.stack.brain_address, SOMA_KEY=key)

    assert done.code == 0, done.err
    assert "Ada drinks tea with two sugars" in done.out
    assert done.out.splitlines()[-1] == "degraded: False"
