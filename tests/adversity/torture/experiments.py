"""The experiments of a run, in order, each on a stack of its own or one shared with its neighbours."""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence

from tests.adversity.torture.crashing import die_at_named_places
from tests.adversity.torture.isolation import populated, raided, without_row_security
from tests.adversity.torture.killing import Killing, kill_while_writing
from tests.adversity.torture.parts import Part
from tests.adversity.torture.planted import plant
from tests.adversity.torture.reporting import Run
from tests.adversity.torture.scene import open_scene
from tests.adversity.torture.verdicts import Verdict


async def _killing(run: Run, seed: int) -> list[Part]:
    async with open_scene() as scene:
        size = Killing(run.size.acknowledged, run.size.kills, run.size.tenants)
        return [await kill_while_writing(scene, size, seed)]


async def _crashing(run: Run, seed: int) -> list[Part]:
    async with open_scene() as scene:
        size = run.size
        return [await die_at_named_places(scene, count=size.crash_points, hits=size.hits, tenants=4, seed=seed)]


async def _isolation(run: Run, seed: int) -> list[Part]:
    async with open_scene() as scene:
        homes = await populated(scene, run.size.tenants)
        whole = await raided(scene, "reaching for other tenants", homes, run.size.attempts, seed)
        tables = await without_row_security(scene)
        fewer = max(300, run.size.attempts // 5)
        part = await raided(
            scene, "reaching for other tenants without row-level security", homes, fewer, seed + 1, tables=str(tables)
        )
    return [whole, part]


async def _planted(run: Run, seed: int) -> list[Part]:
    return [await plant(run.size.planted, seed)]


EXPERIMENTS: dict[str, Callable[[Run, int], Awaitable[list[Part]]]] = {
    "killing": _killing,
    "crashing": _crashing,
    "isolation": _isolation,
    "planted": _planted,
}


IN_CI = ("killing", "isolation", "planted")
"""What a pull request waits for."""


async def run_all(run: Run, names: Sequence[str]) -> None:
    """Run experiments one after the other; one that breaks counts as a failure and the others go on."""
    for name in names:
        began = time.monotonic()
        seed = random.Random(f"{run.seed} {name}").getrandbits(64)
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            parts = await EXPERIMENTS[name](run, seed)
        except Exception as broken:
            traceback.print_exc()
            parts = [Part(name, [Verdict("the experiment came to its end", False, f"{broken!r}"[:2_000])])]
        took_s = time.monotonic() - began
        run.add(parts, took_s)
        verdicts = [verdict for part in parts for verdict in part.verdicts]
        failed = [verdict for verdict in verdicts if not verdict.passed]
        print(f"{name}: {len(verdicts) - len(failed)} passed, {len(failed)} failed, {took_s:.0f} s", file=sys.stderr)
        for verdict in failed:
            print(f"  FAILED {verdict.name}: {verdict.told}", file=sys.stderr, flush=True)
