"""wm and context against the running stack."""

from __future__ import annotations

import json

import pytest

from tests.e2e.console import Console
from tests.e2e.test_cli import tenant_console
from tests.support.stack import Office

pytestmark = [pytest.mark.processes]


async def test_a_session_is_observed_listed_promoted_and_closed(office: Office) -> None:
    at = await tenant_console(office)
    seen = await at.soma("wm", "observe", "the train leaves at eight", "platform nine", "--session", "s1", "-o", "json")
    assert seen.code == 0, seen.err
    assert [True, True] == [answer["observed"]["admitted"] for answer in seen.lines]
    again = await at.soma("wm", "observe", "the train leaves at eight", "--session", "s1")
    assert again.out.startswith("refreshed"), again.out + again.err

    listed = await at.soma("wm", "list", "--session", "s1", "--output", "json")
    assert {"the train leaves at eight", "platform nine"} == {item["text"] for item in listed.lines}
    table = await at.soma("wm", "list", "--session", "s1")
    assert "platform nine" in table.out

    (chosen,) = [item["item_id"] for item in listed.lines if item["text"] == "platform nine"]
    promoted = await at.soma("wm", "promote", chosen, "--session", "s1", "-o", "json")
    assert promoted.code == 0, promoted.err
    (promotion,) = promoted.document["promotions"]
    kept = await at.soma("get", promotion["memory_id"], "--output", "json")
    assert "platform nine" == kept.document["text"]

    ticked = await at.soma("wm", "tick", "--session", "s1", "-o", "json")
    assert 2 == ticked.document["item_count"]
    closed = await at.soma("wm", "close", "--session", "s1")
    assert (0, True) == (closed.code, closed.out.startswith("closed  2 items")), closed.err
    assert "" == (await at.soma("wm", "list", "--session", "s1", "-o", "json")).out


async def test_a_context_is_assembled_with_its_citations(office: Office) -> None:
    at = await tenant_console(office)
    await at.soma("remember", "Ada prefers tea", "--kind", "semantic")
    told = await at.soma("context", "what does Ada drink?", "--budget", "200")
    assert told.code == 0, told.err
    assert ("## " in told.out, "Ada prefers tea" in told.out, "tokens" in told.out.splitlines()[-1]) == (
        True,
        True,
        True,
    )
    document = (await at.soma("context", "-", "-o", "json", given="what does Ada drink?")).document
    assert any(section.get("memory_ids") for section in document["sections"])
    assert document["summary"]["tokens"] > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("wm", "list"), "--session"),
        (("wm", "observe", "x", "--session", "s", "--kind", "dream"), "--kind"),
        (("context",), "text"),
        (("outbox", "replay"), "ENTRY_ID"),
        (("outbox", "replay", "--all"), "--all"),
        (("outbox", "discard", "x"), "--cause"),
        (("index", "rebuild", "--no-such"), "--no-such"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
async def test_wrong_usage_names_the_option_and_exits_2(arguments: tuple[str, ...], told: str) -> None:
    ended = await Console({"SOMA_KEY": "soma_x_y"}).soma(*arguments)
    assert (2, True) == (ended.code, told in ended.err), ended.err


async def test_what_is_wrong_on_the_wire_is_told_with_its_path(office: Office) -> None:
    at = await tenant_console(office)
    refused = await at.soma("context", "x", "--budget", "7", "-o", "json")
    error = json.loads(refused.err)["error"]
    assert (1, "FIELD_VIOLATION", "token_budget") == (refused.code, error["reason"], error["violations"][0]["field"])
