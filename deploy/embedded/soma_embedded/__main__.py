"""`soma up`: starts the stack, says where it is, stops it on Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path

from soma_embedded.errors import EmbeddedError
from soma_embedded.stack import EmbeddedStack, StackSettings

DEFAULT_DIRECTORY = Path("~/.soma")


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGINT or SIGTERM; returns the exit code. A second signal ends everything at once."""
    parser = argparse.ArgumentParser(prog="soma up", description="Start Soma with its stores on this machine.")
    defaults = StackSettings()
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("SOMA_HOME") or DEFAULT_DIRECTORY),
        help="where everything is kept (default: $SOMA_HOME or ~/.soma)",
    )
    parser.add_argument("--brain-address", default=defaults.brain_address, metavar="HOST:PORT")
    parser.add_argument("--memory-address", default=defaults.memory_address, metavar="HOST:PORT")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    settings = StackSettings(memory_address=options.memory_address, brain_address=options.brain_address)
    try:
        return asyncio.run(_run(EmbeddedStack(options.data_dir, settings)))
    except EmbeddedError as error:
        print(f"soma up: {error}", file=sys.stderr)
        return 1


async def _run(stack: EmbeddedStack) -> int:
    """Enters the stack, prints where it is, and leaves it when told to; also when told before it is up."""
    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    stop = asyncio.Event()
    up = False

    def told() -> None:
        # From here on a signal has its usual effect; the children then end with this process.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stop.set()
        if not up and running is not None:
            running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told)
    began = time.monotonic()
    try:
        async with stack:
            up = True
            print(_card(stack, time.monotonic() - began), flush=True)
            await stop.wait()
            print("stopping", flush=True)
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    return 0


def _card(stack: EmbeddedStack, took_s: float) -> str:
    brain = stack.brain_address
    header = f"-H 'authorization: Bearer {stack.development_key}'"
    service = "soma.memory.v1.MemoryService"
    return f"""\
Soma is up ({took_s:.1f} s)
  brain server   {brain}
  memory server  {stack.memory_address}
  tenant         {stack.tenant}
  key            {stack.development_key}
                 (kept in {stack.development_key_file})
  data           {stack.directory.root}

Try it:
  grpcurl -plaintext {header} -d '{{"memory": {{"text": "Ada prefers tea"}}}}' {brain} {service}/Remember
  grpcurl -plaintext {header} -d '{{"text": "what does Ada drink?"}}' {brain} {service}/Recall

Ctrl-C stops it.
"""


if __name__ == "__main__":
    sys.exit(main())
