"""The comparison that ./dev test-polyglot rests on notices everything, and a run that differs fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.polyglot import run
from tests.polyglot.languages import Language
from tests.polyglot.transcripts import difference, unnoticed

SAID = "a: 1\nb: 茶\n".encode()


def test_the_same_bytes_are_no_difference() -> None:
    assert "" == difference(SAID, bytes(SAID))


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (SAID.replace(b"1", b"2"), "line 1"),
        (SAID.replace("茶".encode(), "茗".encode()), "line 2"),
        (SAID[:-1], "line 3"),
        (SAID + b"c: 3\n", "line 3"),
        (SAID.replace(b"\n", b"\r\n"), "line 1"),
        (b"", "line 1"),
    ],
)
def test_a_difference_names_its_line(said: bytes, line: str) -> None:
    assert difference(SAID, said).startswith(line)


def test_no_changed_byte_goes_unnoticed() -> None:
    assert [] == unnoticed(SAID)


async def test_a_command_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    printed, fault = await run.ran([sys.executable, "-c", "print('so far'); raise SystemExit('no')"], tmp_path, {}, 30)
    assert (b"so far\n", True) == (printed, "ended with 1:\nso far\nno" in fault)


def test_a_missing_tool_is_named_with_what_brings_it() -> None:
    language = Language("Latin", Path("/"), [("sh", "dash"), ("latinc", "latin-compiler")], [], [])
    assert ["latinc (Debian's latin-compiler)"] == language.missing()
