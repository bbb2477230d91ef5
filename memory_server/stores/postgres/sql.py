"""SQL lives in files: ``queries/<name>.sql``, each with a comment that says what it answers."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files

_ROOT = files(__package__)


@cache
def query(name: str) -> str:
    """Return the text of a query by its file name, without the suffix."""
    return _ROOT.joinpath("queries", f"{name}.sql").read_text(encoding="utf-8")


def filled(name: str, **parts: str) -> str:
    """Return a query with its ``{placeholders}`` replaced; parts are SQL of ours, never values."""
    return _filled(name, tuple(parts.items()))


@lru_cache(maxsize=4_096)
def _filled(name: str, parts: tuple[tuple[str, str], ...]) -> str:
    """Kept, because the same few statements are asked for in each call, and are long."""
    text = query(name)
    for placeholder, part in parts:
        text = text.replace("{" + placeholder + "}", part)
    return text


@cache
def migrations() -> tuple[tuple[str, str], ...]:
    """Return (name, text) of all migrations in the order of their numbers."""
    found = sorted(entry.name for entry in _ROOT.joinpath("migrations").iterdir() if entry.name[:4].isdigit())
    return tuple((name.removesuffix(".sql"), _migration(name)) for name in found)


def grants() -> str:
    """Return the script of row-level security and grants."""
    return _migration("grants.sql")


def _migration(name: str) -> str:
    return _ROOT.joinpath("migrations", name).read_text(encoding="utf-8")
