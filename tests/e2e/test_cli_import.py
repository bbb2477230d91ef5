"""`soma import`, `soma export` and `soma watch` against the running stack, as somebody at a terminal runs them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
from pathlib import Path

import pytest

from soma_client import SomaClient
from soma_client.cli import main
from tests.e2e.console import ROOT, Console
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.stack import Office

pytestmark = [pytest.mark.processes]
EXPORTS = ROOT / "tests" / "unit" / "client" / "exports"


async def console(office: Office) -> Console:
    """The terminal of a new tenant."""
    agent = await office.agent()
    return Console(
        {
            "SOMA_TARGET": office.stack.brain_address,
            "SOMA_MEMORY_TARGET": office.stack.memory_address,
            "SOMA_KEY": dict(agent.metadata)["authorization"].removeprefix("Bearer "),
        }
    )


def jsonl(path: Path, rows: list[object]) -> str:
    """Writes a file of JSON lines; returns its name."""
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


async def test_a_dry_run_then_an_import_then_an_export_that_imports_elsewhere(office: Office, tmp_path: Path) -> None:
    here, there = await console(office), await console(office)
    notes = jsonl(tmp_path / "notes.jsonl", [{"text": f"note {n}", "key": f"k.{n}"} for n in range(60)])

    tried = await here.soma("import", notes, "--dry-run", "-o", "json")
    assert (0, 60, True) == (tried.code, tried.document["stored"], tried.document["dry_run"]), tried.err
    done = await here.soma("import", notes, "--wait")
    assert (0, "60 stored, 0 skipped, 0 refused") == (done.code, done.out[:31]), done.err
    told = await here.soma("export", str(tmp_path / "a.parquet"), "-o", "json")
    assert (0, 60) == (told.code, told.document["memories"]), told.err
    assert told.document["sha256"] == hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest()
    moved = await there.soma("import", str(tmp_path / "a.parquet"), "-o", "json")
    assert (0, 60) == (moved.code, moved.document["stored"]), moved.err
    back = await there.soma("export", str(tmp_path / "b.jsonl"), "-o", "json")
    assert told.document["content_sha256"] == back.document["content_sha256"]
    assert (tmp_path / "b.jsonl").read_text() == (await here.soma("export", "-")).out


async def test_refused_records_are_written_with_reasons_and_the_exit_says_so(office: Office, tmp_path: Path) -> None:
    at = await console(office)
    rows: list[object] = [{"text": "fine"}, {"txt": "misspelt"}, "not json\n", {"text": "", "payload_json": "["}]
    ended = await at.soma("import", jsonl(tmp_path / "n.jsonl", rows), "-o", "json")
    assert (1, 1, 3) == (ended.code, ended.document["stored"], ended.document["refused"])
    assert str(tmp_path / "n.jsonl.refused.jsonl") == ended.document["refused_file"]
    refused = [json.loads(line) for line in (tmp_path / "n.jsonl.refused.jsonl").read_text().splitlines()]
    assert [(1, "n.jsonl:2", {"txt": "misspelt"}), (2, "n.jsonl:3", "not json")] == [
        (each["offset"], each["place"], each["record"]) for each in refused[:2]
    ]
    assert "memory.payload_json" == refused[2]["violations"][0]["field"]
    assert {"FIELD_VIOLATION"} == {each["reason"] for each in refused}

    limited = await at.soma("import", str(tmp_path / "n.jsonl"), "--max-refused", "1", "-o", "json")
    assert (1, "failed") == (limited.code, json.loads(limited.out)["state"])
    assert "TOO_MANY_REFUSED" == json.loads(limited.err)["error"]["reason"]


async def test_columns_of_csv_standard_input_become_fields_and_payload(office: Office) -> None:
    at = await console(office)
    table = 'body,who,when,labels,mood\n"Tea, please",Ada,2024-05-06,"hot;daily",glad\nsecond,Bo,1700000000,,\n'
    mapped = ["text=body", "actor=who", "occurred_time=when", "tags=labels"]
    options = [word for pair in mapped for word in ("--map", pair)]
    done = await at.soma("import", "-", "--format", "csv", *options, "--set", "kind=semantic", given=table)
    assert 0 == done.code, done.err
    first, second = sorted((await at.soma("list", "-o", "json")).lines, key=lambda memory: str(memory["text"]))
    assert ("Tea, please", "Ada", ["hot", "daily"], "KIND_SEMANTIC", '{"mood":"glad"}') == (
        first["text"],
        first["actor"],
        first["tags"],
        first["kind"],
        first["payload_json"],
    )
    assert ("2024-05-06T00:00:00Z", "2023-11-14T22:13:20Z") == (first["occurred_time"], second["occurred_time"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.jsonl"], "is not there"),
        (["{file}", "--format", "xml"], "must be one of jsonl"),
        (["{file}", "--map", "txt=a"], "'txt' is no field"),
        (["{file}", "--on-conflict", "guess"], "skip, overwrite or fail"),
        (["{file}", "--from", "elsewhere"], "must be one of soma, mem0"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    file = jsonl(tmp_path / "n.jsonl", [{"text": "x"}])
    code = main(["import", *(word.format(file=file) for word in arguments), "--api-key", "k"])
    assert (2, True) == (code, said in " ".join(capsys.readouterr().err.replace("│", " ").split()))


async def test_a_file_that_is_not_what_its_manifest_says_is_not_imported(
    office: Office, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = await console(office)
    await at.soma("remember", "Ada prefers tea")
    assert 0 == (await at.soma("export", str(tmp_path / "a.jsonl"))).code
    (tmp_path / "a.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes()[:-5])
    assert 2 == main(["import", str(tmp_path / "a.jsonl"), "--api-key", "k"])
    assert "was cut or changed" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    again = main(["export", str(tmp_path / "a.jsonl"), "--api-key", "k"])
    assert (2, True) == (again, "--force" in capsys.readouterr().err)


async def test_an_import_that_was_killed_is_resumed_and_never_begun_again_by_mistake(
    office: Office, tmp_path: Path
) -> None:
    at = await console(office)
    rows: list[object] = [{"text": f"note {n}", "payload_json": json.dumps({"x": "y" * 20_000})} for n in range(900)]
    file, state = jsonl(tmp_path / "n.jsonl", rows), tmp_path / "n.jsonl.import.json"
    host, _, port = office.stack.brain_address.rpartition(":")
    async with (
        FaultProxy(host, int(port), delay_s=0.7) as proxy,
        SomaClient.connect(office.stack.brain_address, key=at.environment["SOMA_KEY"]) as client,
    ):
        proxy.fault = Fault.DELAY
        environment = {**at.inherited(), "SOMA_TARGET": f"127.0.0.1:{proxy.port}"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "soma_client.cli", "import", file, cwd=ROOT, env=environment
        )
        async with asyncio.timeout(60):
            while not [memory async for memory in client.list()]:
                pass
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert state.exists()
    careless = await at.soma("import", file)
    assert (2, True) == (careless.code, "--resume" in careless.err)
    ended = await at.soma("import", file, "--resume", "-o", "json")
    assert (0, 900, 0) == (ended.code, ended.document["stored"], ended.document["skipped"]), ended.err
    assert ended.document["resumed_at"] > 0
    assert not state.exists()


async def test_another_memorys_export_is_brought_along_once(office: Office) -> None:
    at = await console(office)
    for stored, skipped in ((5, 0), (0, 5)):
        ended = await at.soma("import", str(EXPORTS / "conversations.json"), "--from", "chatgpt", "-o", "json")
        assert (0, stored, skipped) == (ended.code, ended.document["stored"], ended.document["skipped"]), ended.err
    assert not (EXPORTS / "conversations.json.import.json").exists()


async def test_what_changes_is_followed_from_where_it_was_left(office: Office, tmp_path: Path) -> None:
    at = await console(office)
    rows = "".join(json.dumps({"text": text, "key": text}) + "\n" for text in ("one", "two", "three"))
    await at.soma("remember", "--file", "-", given=rows)
    watch = ("watch", "--state", str(tmp_path / "at"), "--count", "2")
    first = await at.soma(*watch, "--after", "0", "-o", "json")
    texts = {line["changes"][0]["memory_stored"]["memory"]["text"] for line in first.lines}
    assert (2, True) == (len(texts), texts < {"one", "two", "three"})
    await at.soma("forget", "--key", "one")
    second = await at.soma(*watch)
    assert ["stored", "forgotten"] == [line.split()[3] for line in second.out.splitlines()]
    assert "4" == (tmp_path / "at").read_text().strip()
