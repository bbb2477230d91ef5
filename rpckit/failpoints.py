"""Named places where a test lets a process die, as a power cut or a kill would: between one durable step and the next.

A server runs past them for the price of a comparison.  Only with ``SOMA_TESTING=1`` can one be armed: by the words
``name:hit`` in the file that ``SOMA_FAILPOINT_FILE`` names, read at start and on SIGUSR1.  The process then kills
itself with SIGKILL the moment it passes that place for the hit-th time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

POINTS: frozenset[str] = frozenset(
    {
        "brain.file.written",
        "brain.file.committed",
        "delivery.taken",
        "delivery.answered",
        "delivery.settled",
        "postgres.written",
        "postgres.committed",
        "journal.locked",
        "journal.written",
        "journal.committed",
        "index.claimed",
        "index.embedded",
        "index.vectors_kept",
        "index.ensured",
        "index.upserted",
        "index.removed",
        "index.settled",
        "milvus.created",
        "milvus.replaced",
        "milvus.inserted",
        "milvus.dropped",
        "reconcile.requeued",
        "reconcile.removed",
        "rebuild.copied",
        "rebuild.marked",
        "rebuild.filled",
        "rebuild.switched",
        "rebuild.dropped",
        "reembed.filled",
        "reembed.moved",
        "reembed.swept",
    }
)
"""Every place there is; a test holds this list against the code."""


class _Armed:
    """The place a process is to die at; none by default."""

    name = ""
    hits = 0


def failpoint(name: str) -> None:
    """Die here, if this is the armed place and its hit has come."""
    if name != _Armed.name:
        return
    _Armed.hits -= 1
    if _Armed.hits <= 0:
        _die()


def arm(name: str, hit: int = 1) -> None:
    """Have the process die when it passes this place for the hit-th time; an empty name disarms.

    Raises ValueError for a name that is no place.
    """
    if name and name not in POINTS:
        raise ValueError(f"{name!r} is no failpoint")
    _Armed.hits = hit
    _Armed.name = name


def listen() -> None:
    """Take orders, if this process is under test; called once by a server's start."""
    place = os.environ.get("SOMA_FAILPOINT_FILE", "")
    if os.environ.get("SOMA_TESTING") != "1" or not place:
        return
    file = Path(place)
    obey = _obeying(file)
    signal.signal(signal.SIGUSR1, lambda number, frame: obey())
    obey()


def _obeying(file: Path) -> Callable[[], None]:
    def obey() -> None:
        try:
            name, _, hit = file.read_text().strip().partition(":")
            # An order is for one life: the successor of the process must not die of it again.
            file.unlink()
        except FileNotFoundError:
            return
        arm(name, int(hit or 1))

    return obey


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    # The signal reaches this thread at the latest when the call returns; nothing may happen in between.
    while True:
        signal.pause()
