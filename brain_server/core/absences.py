"""Sessions that the memory server does not have, or must not give back: asking it again would cost a call each time."""

from __future__ import annotations

from collections import OrderedDict

from brain_server.ports import SessionName

_MOST = 10_000
_HOLDS_S = 30.0
"""How long the word holds that it does not know a session: another brain may hand one over."""


class Absences:
    """What is known not to be there."""

    def __init__(self) -> None:
        self.closed: set[SessionName] = set()
        """Sessions that ended while their snapshot was not removed yet: it must not bring them back."""
        self._since: OrderedDict[SessionName, float] = OrderedDict()

    def note(self, name: SessionName, now_s: float) -> None:
        """Take in that there is no such session."""
        self._since[name] = now_s
        self._since.move_to_end(name)
        if len(self._since) > _MOST:
            self._since.popitem(last=False)

    def end(self, name: SessionName) -> None:
        """Take in that the session is here by now."""
        self._since.pop(name, None)

    def has(self, name: SessionName, now_s: float) -> bool:
        """Whether nobody need be asked for the session."""
        since_s = self._since.get(name)
        return name in self.closed or (since_s is not None and now_s - since_s < _HOLDS_S)
