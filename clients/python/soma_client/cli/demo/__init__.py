"""`soma demo`: the whole of Soma on this machine in a minute, every claim checked while it is shown."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

from soma_client.cli.demo.acts import play
from soma_client.cli.demo.stage import Stage
from soma_client.cli.failing import tell
from soma_contract.errors import SomaError
from soma_embedded import EmbeddedError, EmbeddedStack, StackSettings


def run(directory: Path | None, sample: Path | None, *, keep: bool, as_json: bool) -> int:
    """Play the demo and return the exit code: 0 if all that was shown held, 1 if not, 3 if it could not start."""
    stage = Stage(quiet=as_json)
    # The supervisor tells of the server that the demo kills on purpose; the demo tells it better.
    logging.basicConfig(level=logging.CRITICAL)
    place = directory or Path(tempfile.mkdtemp(prefix="soma-demo-"))
    if directory is None:
        # Postgres runs as a user of its own when we are root, and must be able to pass through.
        place.chmod(0o755)
    try:
        if sample is not None:
            code = asyncio.run(_run(place, sample, stage))
        else:
            with as_file(files("soma_client") / "sample") as packed:
                code = asyncio.run(_run(place, packed, stage))
    except EmbeddedError as error:
        sys.stderr.write(f"soma demo: {error}\n")
        code = 3
    except SomaError as error:
        code = tell(error, as_json=as_json)
    except ExceptionGroup as group:
        known = group.subgroup(SomaError)
        if known is None:
            raise
        code = max(tell(error, as_json=as_json) for error in _leaves(known))
    finally:
        if directory is None and not keep:
            shutil.rmtree(place, ignore_errors=True)
    if as_json:
        from soma_client.cli import output

        output.document(stage.document())
    return code


def _leaves(group: ExceptionGroup[SomaError]) -> list[SomaError]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, ExceptionGroup) else [error])
    ]


async def _run(place: Path, sample: Path, stage: Stage) -> int:
    stage.title("Soma demo: three tenants, their memories, one killed server")
    stack = EmbeddedStack(place / "data", StackSettings("127.0.0.1:0", "127.0.0.1:0"))
    stage.begin()
    async with stack:
        stage.say("started", f"Postgres, Redis, Milvus, memory server, brain ({stage.took_s():.1f} s)")
        await play(stack, sample, stage)
        stage.begin()
    stage.say("stopped", f"in good order ({stage.took_s():.1f} s)")
    stage.end()
    return 1 if stage.failed else 0
