"""How a command line is read: options anywhere, times, durations, conditions, keys, files of memories."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import typer

from soma_client.cli import main
from soma_client.cli.failing import advice, exit_code, tell
from soma_client.cli.filtering import Conditions
from soma_client.cli.options import GLOBAL, hoisted
from soma_client.cli.place import Place
from soma_client.cli.running import parse_duration_s, parse_time
from soma_client.records import read_records
from soma_contract.errors import (
    BudgetSpentError,
    CircuitBreakerOpenError,
    Code,
    CredentialsMissingError,
    FieldViolationError,
    InternalError,
    MemoryNotFoundError,
    OverloadedError,
    SomaError,
    TenantForbiddenError,
    UnavailableError,
    Violation,
    reasons,
)
from soma_contract.filters import AllOf, KeyPrefix, LabelField, LabelIn, TagsAll, TimeField, TimeRange
from soma_contract.memory import Kind


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["get", "--key", "a", "--output", "json"], ["--output", "json", "get", "--key", "a"]),
        (["get", "--output=json", "x"], ["--output=json", "get", "x"]),
        (["--tenant", "a", "get", "x", "-o", "json"], ["--tenant", "a", "-o", "json", "get", "x"]),
        (["remember", "--", "--tenant", "is a word"], ["remember", "--", "--tenant", "is a word"]),
        (["get", "--tenant"], ["--tenant", "get"]),
    ],
)
def test_global_options_may_stand_anywhere(given: list[str], read: list[str]) -> None:
    assert hoisted(given) == read


def test_the_options_that_are_moved_are_those_that_are_declared() -> None:
    from typer.main import get_command

    from soma_client.cli.app import app

    declared = {
        name
        for option in get_command(app).params
        for name in option.opts
        if not name.endswith("-completion") and name not in ("-h", "--help")
    }

    assert declared == GLOBAL


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("1.5s", 1.5), ("15m", 900.0), ("12h", 43_200.0), ("30d", 2_592_000.0), ("", None)],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration_s(text, "--ttl") == seconds


@pytest.mark.parametrize("text", ["soon", "-1", "0", "5w", "nan"])
def test_what_is_no_duration_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_duration_s(text, "--ttl")


def test_a_time_without_a_zone_is_utc() -> None:
    assert parse_time("2026-10-15", "--since") == datetime(2026, 10, 15, tzinfo=UTC)
    zone = timezone(timedelta(hours=2))
    assert parse_time("2026-10-15T08:00+02:00", "--since") == datetime(2026, 10, 15, 8, tzinfo=zone)


def test_conditions_become_one_filter() -> None:
    conditions = Conditions(kind="semantic", tags=["a", "b"], key_prefix="user.", actor="Ada", since="2026-10-01")

    assert conditions.filter() == AllOf(
        (
            LabelIn(LabelField.KIND, (Kind.SEMANTIC.value,)),
            LabelIn(LabelField.ACTOR, ("Ada",)),
            TagsAll(("a", "b")),
            KeyPrefix("user."),
            TimeRange(TimeField.OCCURRED, datetime(2026, 10, 1, tzinfo=UTC), None),
        )
    )


def test_the_key_is_the_one_given_or_that_of_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMA_HOME", str(tmp_path))
    assert Place().key() == ""

    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "dev.key").write_text("soma_dev_key\n")

    assert Place().key() == "soma_dev_key"
    assert Place(api_key="soma_other").key() == "soma_other"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryNotFoundError(), 1),
        (FieldViolationError(), 1),
        (UnavailableError(), 3),
        (CircuitBreakerOpenError(), 3),
        (BudgetSpentError(), 3),
        (OverloadedError(), 3),
        (CredentialsMissingError(), 4),
        (TenantForbiddenError(), 4),
        (InternalError(), 5),
    ],
)
def test_errors_end_with_the_documented_code(error: SomaError, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_tells_its_reason_its_fields_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = MemoryNotFoundError("gone", violations=[Violation("target.key", "is unknown")], key="a")

    assert tell(error, as_json=False) == 1
    assert capsys.readouterr().err.splitlines() == [
        "soma: gone",
        "  reason  MEMORY_NOT_FOUND key=a",
        "  field   target.key: is unknown",
        "  try     'soma list' shows what is there; --namespace and --tenant say where to look",
    ]


def test_advice_is_about_reasons_that_exist() -> None:
    from soma_client.cli.failing import _ADVICE

    assert set(_ADVICE) <= set(reasons())
    assert "soma up" in advice(UnavailableError())
    assert UnavailableError.code is Code.UNAVAILABLE


def test_a_file_of_memories_is_read_in_the_contracts_words() -> None:
    lines = ['{"text": "tea", "kind": "KIND_SEMANTIC", "occurred_time": "2026-09-01T08:00:00Z", "sequence": 3}', ""]

    (memory,) = read_records(lines)

    assert (memory.text, memory.kind, memory.sequence) == ("tea", Kind.SEMANTIC, 3)
    assert memory.occurred_at == datetime(2026, 9, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("{", "line 1"),
        ('{"txt": "tea"}', "line 1"),
        ('{"text": "tea", "tags": [""]}', "line 1.memory.tags[0]"),
    ],
)
def test_a_wrong_line_is_named(line: str, field: str) -> None:
    with pytest.raises(FieldViolationError) as caught:
        list(read_records([line]))

    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["recall"],
        ["recall", "x", "--limit", "0"],
        ["recall", "x", "--preset", "wild"],
        ["list", "--order", "colour"],
        ["list", "--since", "yesterday"],
        ["remember", "x", "--kind", "vague"],
        ["get", "x", "--output", "xml"],
        ["migrate", "--phase", "middle"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_without_a_key_nothing_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOMA_HOME", str(tmp_path))
    monkeypatch.delenv("SOMA_KEY", raising=False)

    assert main(["get", "--key", "a"]) == 4
    assert "soma up" in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    heavy = {"grpc", "numpy", "rich", "google.protobuf", "asyncio", "pydantic", "soma_contract"}
    program = (
        "import sys\nfrom soma_client.cli import main\n"
        "code = main(['--help'])\n"
        f"print(*sorted({heavy!r} & set(sys.modules)), file=sys.stderr, end='')\n"
        "sys.exit(code)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stderr == ""
    assert done.returncode == 0
    assert "remember" in done.stdout


def test_the_settings_of_both_servers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--markdown"]) == 0

    told = capsys.readouterr().out
    assert "| `SOMA_MEMORY_ADDRESS` | `127.0.0.1:9595` |" in told
    assert "| `SOMA_BRAIN_ADDRESS` | `127.0.0.1:9696` |" in told
    assert "| `SOMA_MILVUS_PORT` | `19530` | 1 to 65,535 |" in told
    assert "local, openai, hashing" in told
