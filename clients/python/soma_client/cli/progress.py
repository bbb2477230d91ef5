"""Progress of long work on a terminal: drawn on stderr while somebody looks, silent otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def drawn(title: str, *, quiet: bool) -> Iterator[Callable[[int, int, int, str], None]]:
    """Gives what to call with (records, how much of, how much, more to say); draws at most ten times a second."""
    if quiet or not sys.stderr.isatty():
        yield lambda records, reached, size, more: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[records]:,} records"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None, records=0, rate="", more="")
        first: list[int] = []

        def tell(records: int, reached: int, size: int, more: str) -> None:
            if not first:
                first.append(records)
            elapsed_s = progress.tasks[0].elapsed or 0.0
            rate = f"{(records - first[0]) / elapsed_s:,.0f}/s" if elapsed_s > 1.0 else ""
            progress.update(task, total=size or None, completed=reached, records=records, rate=rate, more=more)

        yield tell
