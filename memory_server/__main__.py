"""``python -m memory_server [--workers N]``: serve as the environment says."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import NoReturn

from pydantic import ValidationError

from memory_server import workers
from memory_server.app import run
from memory_server.settings import MemorySettings
from memory_server.stores.postgres.errors import PostgresRefusedError
from rpckit import failpoints
from rpckit.telemetry.logs import configure_logging
from soma_contract.embedders.factory import EmbedderSettingError
from soma_contract.embedders.hashing import HashingRefusedError
from soma_contract.embedders.wheel import ModelMissingError
from soma_contract.errors import SomaError


def main() -> None:
    """Serve until asked to stop; exits 2 for settings that cannot work, 3 for a store that is away."""
    count = _workers(sys.argv[1:])
    configure_logging()
    failpoints.listen()
    try:
        settings = MemorySettings()  # type: ignore[call-arg, unused-ignore] # the environment fills it
    except ValidationError as error:
        _fail(2, "\n".join(_told(problem["loc"], problem["msg"]) for problem in error.errors()))
    try:
        if count > 1:
            with workers.reserved(settings.memory_address) as address:
                sys.exit(asyncio.run(workers.supervise(count, address)))
        asyncio.run(run(settings, workers=workers.WORKER in os.environ))
    except (EmbedderSettingError, HashingRefusedError, ModelMissingError, PostgresRefusedError, ValueError) as error:
        _fail(2, str(error))
    except (SomaError, OSError) as error:
        _fail(3, str(error))


def _workers(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="soma-memory-server", description="Serve as the environment says; `soma settings` lists what it may say."
    )
    parser.add_argument(
        "--workers",
        type=int,
        choices=range(1, 65),
        default=1,
        metavar="N",
        help="processes that share the port, 1 to 64; the ops port of each is one above that of the one before",
    )
    return int(parser.parse_args(arguments).workers)


def _told(location: tuple[int | str, ...], message: str) -> str:
    name = f"SOMA_{location[0]}".upper() if location else "settings"
    return f"{name}: {message.removeprefix('Value error, ')}"


def _fail(code: int, message: str) -> NoReturn:
    sys.stderr.write(f"memory server cannot start: {message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
