"""``python -m brain_server``: serve as the environment says; ``rotate-key`` after it encrypts the brain's file anew."""

from __future__ import annotations

import asyncio
import sys
from typing import NoReturn

from pydantic import ValidationError

from brain_server.app import run
from brain_server.settings import BrainSettings
from brain_server.stores.sqlite.errors import BrainFileError
from brain_server.stores.sqlite.file import FILE_NAME, BrainFile
from rpckit import failpoints
from rpckit.telemetry.logs import configure_logging
from soma_contract.embedders.factory import EmbedderSettingError
from soma_contract.embedders.wheel import ModelMissingError
from soma_contract.errors import SomaError

_SWITCH_S = 0.0005
"""How long a thread keeps the interpreter while others wait. At Python's 5 ms the thread that writes the brain's file
waits for a busy event loop before and after each fsync: one Observe stream took 2,230-3,931 observations a second, with
this 2,750-4,961 (six turns each on a busy machine of two processors); 16 concurrent writers see no clear difference."""


def main() -> None:
    """Serve until asked to stop; exits 2 for settings that cannot work, 3 for a store that is away."""
    words = sys.argv[1:]
    if words not in ([], ["rotate-key"]):
        _fail(2, f"{' '.join(words)!r} is not known; say nothing to serve, or rotate-key")
    sys.setswitchinterval(_SWITCH_S)
    configure_logging()
    failpoints.listen()
    try:
        settings = BrainSettings()  # type: ignore[call-arg, unused-ignore] # the environment fills it
    except ValidationError as error:
        _fail(2, "\n".join(_told(problem["loc"], problem["msg"]) for problem in error.errors()))
    try:
        asyncio.run(_rotate_key(settings) if words else run(settings))
    except (EmbedderSettingError, ModelMissingError, BrainFileError, ValueError) as error:
        _fail(2, str(error))
    except (SomaError, OSError) as error:
        _fail(3, str(error))


async def _rotate_key(settings: BrainSettings) -> None:
    """Encrypt everything in the file of a brain that does not run with a new key, and destroy the old ones."""
    if not await asyncio.to_thread((settings.data_dir / FILE_NAME).exists):
        raise BrainFileError(f"no brain has kept anything in {settings.data_dir}; set SOMA_DATA_DIR as for the brain")
    async with BrainFile(settings.data_dir, key_file=settings.outbox_key_file, brain_id=settings.brain_id) as file:
        sys.stdout.write(f"encrypted with the new key {await file.rotate_key()}; the old ones are destroyed\n")


def _told(location: tuple[int | str, ...], message: str) -> str:
    name = f"SOMA_{location[0]}".upper() if location else "settings"
    return f"{name}: {message.removeprefix('Value error, ')}"


def _fail(code: int, message: str) -> NoReturn:
    sys.stderr.write(f"brain cannot start: {message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
