"""The experiments of a run, in order, each on a stack of its own or one shared with its neighbours."""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence

from tests.adversity.torture.bugs import NO_CHECK_OF_HITS
from tests.adversity.torture.crashing import die_at_named_places
from tests.adversity.torture.freshness import recall_own_writes, time_restarts
from tests.adversity.torture.indexes import filled, re_embed, rebuild, repair
from tests.adversity.torture.isolation import breached, plant_strangers, populated, raided, without_row_security
from tests.adversity.torture.killing import Killing, kill_while_writing
from tests.adversity.torture.networks import STORES, black_hole, hang_up, kept
from tests.adversity.torture.parts import Part
from tests.adversity.torture.planted import apply, copied, environment, plant
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
    # Rows of strangers are to stay in the index.
    async with open_scene(SOMA_RECONCILE_EVERY_S="0") as scene:
        homes = await populated(scene, run.size.tenants)
        await plant_strangers(scene, homes, seed)
        whole = await raided(scene, "reaching for other tenants", homes, run.size.attempts, seed)
        tables = await without_row_security(scene)
        fewer = max(300, run.size.attempts // 5)
        part = await raided(
            scene, "reaching for other tenants without row-level security", homes, fewer, seed + 1, tables=str(tables)
        )
    return [whole, part]


async def _unchecked(run: Run, seed: int) -> list[Part]:
    with copied() as place:
        for edit in NO_CHECK_OF_HITS:
            apply(place, edit)
        copy = environment(place)["PYTHONPATH"]
        async with open_scene(SOMA_RECONCILE_EVERY_S="0", PYTHONPATH=copy) as scene:
            homes = await populated(scene, run.size.tenants)
            await plant_strangers(scene, homes, seed)
            fewer = max(300, run.size.attempts // 5)
            part = await raided(scene, "reaching for other tenants without the check of hits", homes, fewer, seed)
            part.verdicts.append(await breached(scene, homes, 300, seed + 1))
            return [part]


async def _networks(run: Run, seed: int) -> list[Part]:
    async with open_scene(proxied=STORES) as scene:
        homes = await kept(scene, 8)
        part = await hang_up(scene, homes, run.size.cancelled, seed)
        return [part, await black_hole(scene, homes, run.size.black_holed, seed)]


async def _restarts(run: Run, seed: int) -> list[Part]:
    async with open_scene() as scene:
        return [await time_restarts(scene, run.size.restarts)]


async def _freshness(run: Run, seed: int) -> list[Part]:
    async with open_scene() as scene:
        return [await recall_own_writes(scene, run.size.recalls, min(25, run.size.tenants))]


async def _index(run: Run, seed: int) -> list[Part]:
    # The comparison that is asked for has to find everything, not one that happens to come first.
    async with open_scene(SOMA_RECONCILE_EVERY_S="0") as scene:
        stored = await filled(scene, run.size.index_rows)
        return [await ordeal(scene, stored, seed) for ordeal in (repair, rebuild, re_embed)]


async def _planted(run: Run, seed: int) -> list[Part]:
    return [await plant(run.size.planted, seed)]


EXPERIMENTS: dict[str, Callable[[Run, int], Awaitable[list[Part]]]] = {
    "killing": _killing,
    "crashing": _crashing,
    "isolation": _isolation,
    "networks": _networks,
    "restarts": _restarts,
    "freshness": _freshness,
    "index": _index,
    "unchecked": _unchecked,
    "planted": _planted,
}


IN_CI = ("killing", "isolation", "planted")
"""What a pull request waits for."""


async def run_all(run: Run, names: Sequence[str], done: Callable[[], None] = lambda: None) -> None:
    """Run experiments one after the other; one that breaks counts as a failure and the others go on.

    ``done`` is called after each.
    """
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
        done()
