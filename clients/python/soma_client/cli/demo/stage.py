"""What the demo shows, and whether it held."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from soma_client.cli import output


class Stage:
    """Prints as the demo goes on, unless quiet, and keeps every claim with its outcome."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._began = self._began_all = time.monotonic()
        self._claims: list[dict[str, Any]] = []
        self._answers: list[dict[str, Any]] = []

    @property
    def failed(self) -> int:
        """Claims that did not hold."""
        return sum(not claim["held"] for claim in self._claims)

    def begin(self) -> None:
        """Start the clock of the next step."""
        self._began = time.monotonic()

    def took_s(self) -> float:
        """Seconds since ``begin``."""
        return time.monotonic() - self._began

    def title(self, text: str) -> None:
        """Head of the demo or of an act."""
        self._print(f"\n[bold]{text}[/bold]")

    def say(self, word: str, text: str) -> None:
        """Tell what was done."""
        self._print(f"  [cyan]{word:<10}[/cyan] ", text)

    def claim(self, text: str, held: bool, found: str = "") -> None:
        """Tell what was expected, and whether it is so."""
        self._claims.append({"claim": text, "held": held, "found": found})
        mark = "[green]yes[/green]" if held else "[bold red]NO[/bold red] "
        self._print(f"  {mark}        ", f"{text}{f': {found}' if found and not held else ''}")

    def answer(self, tenant: str, question: str, hits: Sequence[tuple[float, str]], took_ms: float) -> None:
        """Show what a question found."""
        shown = [{"score": round(score, 3), "text": text} for score, text in hits]
        self._answers.append({"tenant": tenant, "question": question, "hits": shown, "ms": round(took_ms, 1)})
        self._print(f"  [cyan]{tenant:<10}[/cyan] ", f"{question}  ({took_ms:.0f} ms)")
        for score, text in hits:
            self._print(f"  {'':<10} [dim]{score:6.3f}[/dim] ", text)

    def end(self) -> None:
        """The last line."""
        held = len(self._claims) - self.failed
        took = f"{time.monotonic() - self._began_all:.0f} s"
        self.title(f"{held} of {len(self._claims)} claims held, {took}")

    def document(self) -> dict[str, Any]:
        """Everything that was shown, for programs."""
        return {"answers": self._answers, "claims": self._claims, "failed": self.failed}

    def _print(self, marked: str, text: str = "") -> None:
        """Prints our own markup, then a text that is taken as it is."""
        if self._quiet:
            return
        from rich.text import Text

        line = Text.from_markup(marked)
        line.append(output.shown(text))
        output.console().print(line)
        sys.stdout.flush()
