"""The lines of the changelog that a batch leaves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from memory_server.stores.standings import Entry


def changelog_lines(entries: Sequence[Entry], links: Iterable[Any]) -> list[list[object]]:
    """The lines of the changelog; links that went with an end are in the revision that took the end."""
    lines: list[list[object]] = []
    ordinals: dict[int, int] = defaultdict(int)
    forgotten: dict[str, Entry] = {}
    for entry in entries:
        lines.append(
            [entry.step, ordinals[entry.step], entry.op, entry.memory_id, entry.namespace, entry.version, None, ""]
        )
        ordinals[entry.step] += 1
        if entry.op == "forget":
            forgotten[entry.memory_id] = entry
    for link in links:
        source, target = str(link["source_id"]), str(link["target_id"])
        # An expired memory that is written anew has lost its links too, without having been forgotten.
        end = forgotten.get(source) or forgotten.get(target) or _last(entries, source, target)
        version = link["version"] + 1
        lines.append([end.step, ordinals[end.step], "unlink", source, end.namespace, version, target, link["relation"]])
        ordinals[end.step] += 1
    return lines


def _last(entries: Sequence[Entry], *memory_ids: str) -> Entry:
    return next(entry for entry in reversed(entries) if entry.memory_id in memory_ids)
