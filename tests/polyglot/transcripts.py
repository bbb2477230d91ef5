"""Transcripts compared byte for byte."""

from __future__ import annotations

from itertools import zip_longest


def difference(expected: bytes, actual: bytes) -> str:
    """Where two transcripts part, both lines shown; empty when they are the same bytes."""
    if expected == actual:
        return ""
    for number, (wanted, got) in enumerate(zip_longest(expected.split(b"\n"), actual.split(b"\n")), 1):
        if wanted != got:
            return f"line {number}:\n  Python  {_shown(wanted)}\n  here    {_shown(got)}"
    raise AssertionError("unlike bytes have no unlike line")


def _shown(line: bytes | None) -> str:
    return "(ended)" if line is None else ascii(line.decode("utf-8", "backslashreplace"))


def unnoticed(transcript: bytes) -> list[int]:
    """Places at which another byte would go unnoticed: none, if the comparison is worth anything."""
    return [
        place
        for place in range(len(transcript))
        if not difference(transcript, transcript[:place] + bytes([transcript[place] ^ 1]) + transcript[place + 1 :])
    ]
