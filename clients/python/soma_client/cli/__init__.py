"""The command line, `soma`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see EXIT CODES in ``soma --help``."""
    from soma_client.cli.app import run

    return run(list(sys.argv[1:] if arguments is None else arguments))
