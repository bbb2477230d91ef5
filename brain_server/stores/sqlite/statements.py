"""The statements of `statements.sql` by name."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def _all() -> dict[str, str]:
    parts = _NAME.split(files(__package__).joinpath("statements.sql").read_text(encoding="utf-8"))
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def sql(name: str) -> str:
    """Return the statement called `name`; raises KeyError for an unknown one."""
    return _all()[name]
