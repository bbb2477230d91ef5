"""Which entry may be sent: the one that is the oldest for every memory id it touches.

Each (tenant, id) has a line of entries.  An entry is ready when it stands first in all of its lines, so writes to one
memory arrive in the order they were acknowledged, and writes to different memories do not wait for each other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from brain_server.domain.entry import Entry

Line = OrderedDict[int, Entry]


class Ordering:
    """The lines of all pending entries."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], Line] = {}
        self._entries: dict[int, Entry] = {}
        self._behind: dict[int, int] = {}
        """By sequence: in how many lines the entry does not stand first."""

    def __contains__(self, entry: Entry) -> bool:
        return entry.sequence in self._behind

    def add(self, entry: Entry) -> bool:
        """Put an entry at the end of its lines; return whether it is ready at once."""
        behind = 0
        for key in _keys(entry):
            line = self._lines.setdefault(key, OrderedDict())
            behind += bool(line)
            line[entry.sequence] = entry
        self._entries[entry.sequence] = entry
        self._behind[entry.sequence] = behind
        return behind == 0

    def is_ready(self, entry: Entry) -> bool:
        """Return whether an entry stands first in all of its lines."""
        return self._behind.get(entry.sequence) == 0

    def remove(self, entry: Entry) -> list[Entry]:
        """Take an entry out wherever it stands; return those that became ready, oldest first."""
        if self._behind.pop(entry.sequence, None) is None:
            return []
        del self._entries[entry.sequence]
        ready = []
        for key in _keys(entry):
            line = self._lines[key]
            was_first = next(iter(line)) == entry.sequence
            del line[entry.sequence]
            if not line:
                del self._lines[key]
            elif was_first:
                follower = next(iter(line.values()))
                self._behind[follower.sequence] -= 1
                if self._behind[follower.sequence] == 0:
                    ready.append(follower)
        return sorted(ready, key=lambda entry: entry.sequence)

    def ready(self) -> list[Entry]:
        """Return every entry that stands first in all of its lines, oldest first."""
        return [self._entries[sequence] for sequence in sorted(self._entries) if self._behind[sequence] == 0]

    def has_company(self, entry: Entry) -> bool:
        """Return whether other entries stand in one of its lines."""
        return any(len(self._lines[key]) > 1 for key in _keys(entry) if key in self._lines)

    def ahead_of(self, entry: Entry) -> list[Entry]:
        """Return the entries that stand first where this one stands further behind."""
        firsts = (next(iter(self._lines[key].values())) for key in _keys(entry) if key in self._lines)
        return [first for first in firsts if first.sequence != entry.sequence]

    def defer(self, entry: Entry) -> list[Entry]:
        """Move an entry behind all others in its lines; return those that became ready, itself included if so."""
        ready = self.remove(entry)
        return [*ready, entry] if self.add(entry) else ready

    def touching(self, tenant: str, memory_id: str) -> Iterator[Entry]:
        """Yield the pending entries of one memory in the order they will be sent."""
        return iter(self._lines.get((tenant, memory_id), {}).values())


def _keys(entry: Entry) -> list[tuple[str, str]]:
    tenant = entry.tenant.name
    return [(tenant, memory_id) for memory_id in dict.fromkeys(entry.touched)]
