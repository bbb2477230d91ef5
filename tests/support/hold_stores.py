"""A supervisor to be killed: holds the stores of a directory, says where they are, stops on SIGTERM.

`python -m tests.support.hold_stores DIRECTORY` prints one JSON line when they are ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from soma_embedded import EmbeddedError, EmbeddedStores


async def hold(directory: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with EmbeddedStores(directory) as stores:
        place = {"user": os.geteuid(), "pids": dict(stores.pids), "postgres": stores.postgres_admin_url}
        print(json.dumps(place), flush=True)
        await stop.wait()


if __name__ == "__main__":
    try:
        asyncio.run(hold(Path(sys.argv[1])))
    except EmbeddedError as error:
        sys.exit(str(error))
