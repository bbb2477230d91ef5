"""Text in the index: the one encoding of stored labels and the one quoting of literals.

Milvus engines disagree about escapes inside string literals: the embedded one drops the backslash and keeps
the next character, and no literal can hold a line break at all.  So labels are stored encoded, in an alphabet
that needs no escapes, and a literal is the encoded label between quotes: nothing a caller writes can end it.
"""

from __future__ import annotations

import re

LABEL_BYTES = 768
"""Longest encoded label: 256 bytes, of which each may become three."""

_UNSAFE = re.compile(r"""[\x00-\x1f\x7f-\x9f"'\\%{}$\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]""")
_LAST = 0x10FFFF


def encoded(label: str) -> str:
    """Return the label as the index stores it: unsafe characters as ``%XX`` of their UTF-8 bytes.

    Injective, and a prefix of a label becomes a prefix of its encoding.
    """
    return _UNSAFE.sub(_percent, label)


def quoted(label: str) -> str:
    """Return the label as a string literal of an expression: encoded, between double quotes."""
    return f'"{encoded(label)}"'


def quoted_list(labels: list[str]) -> str:
    """Return the labels as a list literal."""
    return f"[{','.join(map(quoted, labels))}]"


def fits(label: str) -> bool:
    """Whether a label can be in the index at all; a longer one equals nothing there."""
    return len(encoded(label).encode()) <= LABEL_BYTES


def prefix_bounds(prefix: str) -> tuple[str, str | None]:
    """Return literals (low, high) such that encoded labels with the prefix are those in [low, high).

    ``high`` is None when there is no upper bound.  Comparison is by UTF-8 bytes, which is by code points.
    """
    low = encoded(prefix)
    for end in range(len(low), 0, -1):
        following = _following(low[end - 1])
        if following is not None:
            return f'"{low}"', f'"{low[: end - 1]}{following}"'
    return f'"{low}"', None


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _following(char: str) -> str | None:
    """The next character that an encoded label may contain."""
    for code in range(ord(char) + 1, _LAST + 1):
        following = chr(code)
        if following == "%" or not _UNSAFE.match(following):
            return following
    return None
