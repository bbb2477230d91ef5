"""Global options may stand anywhere on the command line: they are moved to the front before it is read."""

from __future__ import annotations

from collections.abc import Sequence

GLOBAL = frozenset(
    {
        "--target",
        "--memory-target",
        "--api-key",
        "--tenant",
        "--persona",
        "--session",
        "--namespace",
        "--tls-ca",
        "--timeout",
        "--output",
        "-o",
    }
)
"""Those that take a value; all of them do."""


def hoisted(arguments: Sequence[str]) -> list[str]:
    """The arguments with the global options first; what follows ``--`` is left alone."""
    front: list[str] = []
    rest: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, equals, _ = word.partition("=")
        if word == "--":
            rest += [word, *words]
            break
        if name not in GLOBAL:
            rest.append(word)
        elif equals or not words:
            front.append(word)
        else:
            front += [word, words.pop(0)]
    return front + rest
