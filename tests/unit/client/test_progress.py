"""The progress of long work: drawn where somebody looks, and nowhere else."""

from __future__ import annotations

import io

import pytest

from soma_client.cli.progress import drawn


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_shown_how_far_it_is_and_what_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    for name in ("TERM", "COLUMNS"):
        monkeypatch.setenv(name, {"TERM": "xterm", "COLUMNS": "200"}[name])
    with drawn("import notes.jsonl", quiet=False) as tell:
        tell(1_000, 50, 100, "3 refused, 17 to index")
    shown = screen.getvalue()
    for part in ("import notes.jsonl", "50%", "1,000 records", "eta", "3 refused, 17 to index"):
        assert part in shown


@pytest.mark.parametrize(("screen", "quiet"), [(io.StringIO(), False), (Screen(), True)])
def test_nothing_is_drawn_where_nobody_looks(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO, quiet: bool) -> None:
    monkeypatch.setattr("sys.stderr", screen)
    with drawn("import notes.jsonl", quiet=quiet) as tell:
        tell(1_000, 50, 100, "")
    assert "" == screen.getvalue()
