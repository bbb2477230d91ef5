"""What combining writes gains: the same writes with and without it, in turns, in one run.

    ./dev bench writes [--seconds 3] [--rounds 3] [--postgres-admin-url URL]

Prints writes a second for one writer, 64 writers of one tenant and 64 writers of 32 tenants, and the ratios.
Without combining every write is a transaction of its own, on the same code otherwise. Exits 1 below the floors:
3 for 64 writers of one tenant, 1 for 32 tenants.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import asyncpg

from memory_server.stores.analysing import analysis
from memory_server.stores.calls import Call
from memory_server.stores.postgres.batches import Batches
from memory_server.stores.postgres.journal import open_journal
from memory_server.stores.postgres.migrate import migrate
from memory_server.stores.postgres.pools import PoolSizes, open_pools
from memory_server.stores.requests import Request
from soma_contract.completing import completed
from soma_contract.ids import new_memory_id
from soma_contract.memory import Memory, Remember
from soma_contract.tenant import Tenant, admin_tenant
from soma_embedded import EmbeddedStores

Write = Callable[[Tenant, Remember], Awaitable[object]]
FLOORS = {"64 writers, 1 tenant": 3.0, "64 writers, 32 tenants": 1.0}
LOADS = {"1 writer": (1, 1), "64 writers, 1 tenant": (64, 1), "64 writers, 32 tenants": (64, 32)}
_SENTENCE = "the green tea of march tasted better than any coffee we ever had in that small house by the sea"
_numbers = count()


def command() -> Remember:
    """A memory of a sentence, with a request id, as a brain sends it."""
    number, known = next(_numbers), _SENTENCE.split()
    words = [known[(number * step) % len(known)] for step in range(1, 15)]
    text = " ".join([*words, str(number)])
    return completed(
        Remember(Memory(text=text, actor="ann", session_id=f"s{number // 50}"), request_id=new_memory_id())
    )


async def rate(write: Write, tenants: Sequence[Tenant], writers: int, seconds: float) -> float:
    """Writes a second of so many writers, each with one write in flight."""
    done = 0
    start = time.perf_counter()

    async def writer(tenant: Tenant) -> None:
        nonlocal done
        while time.perf_counter() - start < seconds:
            await write(tenant, command())
            done += 1

    await asyncio.gather(*(writer(tenants[number % len(tenants)]) for number in range(writers)))
    return done / (time.perf_counter() - start)


@asynccontextmanager
async def both_ways(url: str) -> AsyncIterator[tuple[Write, Write]]:
    """Writing one transaction each, and combined."""
    analyse = analysis()
    async with AsyncExitStack() as stack:
        pools = await stack.enter_async_context(open_pools(url, PoolSizes(interactive=16)))
        journal = await stack.enter_async_context(open_journal(pools, analyse))
        batches = Batches(pools.interactive, analyse)

        async def alone(tenant: Tenant, one: Remember) -> object:
            call = Call.of([Request.of(one, None)], analyse, atomic=False)
            return await batches.commit(tenant, [call], deadline_s=30.0, lock_s=30.0)

        async def combined(tenant: Tenant, one: Remember) -> object:
            return await journal.write(tenant, [one])

        yield alone, combined


async def measured(url: str, seconds: float, rounds: int) -> bool:
    """Measure all loads in turns, print them, and say whether the floors hold."""
    holds = True
    async with both_ways(url) as (alone, combined):
        for name, (writers, many) in LOADS.items():
            tenants = [admin_tenant(f"bench-{uuid.uuid4().hex[:8]}", reason="bench") for _ in range(many)]
            pairs = [
                (await rate(alone, tenants, writers, seconds), await rate(combined, tenants, writers, seconds))
                for _ in range(rounds)
            ]
            ratio = statistics.median(after / before for before, after in pairs)
            before, after = (statistics.median(column) for column in zip(*pairs, strict=True))
            floor = FLOORS.get(name)
            told = f", floor {floor:g}" if floor else ""
            print(f"{name:24} {before:7.0f}/s alone {after:7.0f}/s combined   ratio {ratio:.2f}{told}", flush=True)
            holds = holds and (floor is None or ratio >= floor)
    return holds


@contextmanager
def data_directory() -> Iterator[Path]:
    """A directory that goes with the measurement, and that the user Postgres runs as may enter."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


async def main(arguments: argparse.Namespace) -> int:
    """Run on the Postgres given, or on an embedded one."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    if arguments.postgres_admin_url:
        admin = await asyncpg.connect(arguments.postgres_admin_url)
        await admin.execute(f"CREATE DATABASE {name}")
        base, place = arguments.postgres_admin_url.rsplit("/", 1)[0], arguments.postgres_admin_url.split("@", 1)[1]
        await migrate(f"{base}/{name}", password="bench")  # noqa: S106 - a database that lives for a minute
        try:
            url = f"postgresql://soma_app:bench@{place.rsplit('/', 1)[0]}/{name}"
            return 0 if await measured(url, arguments.seconds, arguments.rounds) else 1
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await admin.close()
    with data_directory() as directory:
        async with EmbeddedStores(directory / "data") as stores:
            url, admin_url = await stores.create_database(name)
            await migrate(admin_url)
            return 0 if await measured(url, arguments.seconds, arguments.rounds) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    parser.add_argument("--postgres-admin-url", default="", help="another Postgres than the embedded one")
    sys.exit(asyncio.run(main(parser.parse_args())))
