"""How good recall is, through the real servers: each conversation a tenant, each question a recall through the brain.

    ./dev bench quality --data DIR [--data DIR …] [--stores N] [--limit N] [--ablate] [--graph] [--json]

Starts a stack of its own, stores every turn over RememberMany, waits until the index has them, recalls each question
and compares with BM25 and with reciprocal rank fusion (k = 60) of BM25 and MiniLM, computed in the same run from the
same turns. --ablate asks every question again without each signal in turn, its weight set to 0 for the tenants.
--graph links turns in their order, then also those that name the same (bench/conversation_links.py), and asks again
with the graph leg.
The metrics are those of bench/metrics.py; bench/dialogues.py says what a data directory holds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.baselines import Rankings, keyword_and_fused
from bench.conversation_links import by_entities, in_order
from bench.dialogues import Dialogues, Question, Turn, read_dialogues
from bench.metrics import NAMES, TOTAL, averages
from soma_client import Memory, Preset, RecallQuery, SomaClient
from soma_contract.errors import TenantExistsError
from soma_contract.ids import new_memory_id
from soma_embedded import EmbeddedStack, StackSettings

INDEXED_WITHIN_S = 3_600.0
CONCURRENT_RECALLS = 4
ABLATIONS: dict[str, dict[str, float]] = {
    name: {name: 0.0}
    for name in (
        *("keyword", "late_interaction", "reach", "answer", "session", "actor", "date", "question"),
        *("first_person", "time"),
    )
} | {"neighbours": {"previous": 0.0, "following": 0.0, "answer": 0.0}}
"""What is left out, and the weights that leave it out."""
LINKS = {"order": in_order, "order and names": by_entities}
"""Where links come from; each is added to those before."""
GRAPH_WEIGHT = 0.5
"""That of the preset `exploratory`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one data set gave."""

    stored_per_s: float
    indexed_s: float
    recall_ms: tuple[float, float]
    """Median and 95th percentile of a recall, with CONCURRENT_RECALLS at a time."""
    degraded: int
    """Answers that were not whole."""
    rankings: Rankings
    ablated: dict[str, Rankings]
    """Rankings without each signal, by its name."""
    linked: dict[str, Rankings]
    """Rankings with the graph leg, by what the links were made from."""


async def measure(
    stack: EmbeddedStack,
    data: Dialogues,
    limit: int,
    preset: Preset,
    *,
    ablate: bool = False,
    graph: bool = False,
) -> Measured:
    """Store, wait for the index, recall."""
    turn_ids: dict[str, str] = {}
    tenants = {store: _tenant_name(data.name, store) for store in data.stores}
    keys = await _open_tenants(stack, list(tenants.values()))
    async with (
        SomaClient.connect(stack.brain_address, key=stack.development_key, own_connection=True) as brain,
        SomaClient.connect(stack.memory_address, key=stack.development_key) as memory,
    ):
        clients = {store: brain.bound(key=keys[name], tenant=name) for store, name in tenants.items()}
        began = time.monotonic()
        for store, turns in data.stores.items():
            turn_ids |= await _store(clients[store], turns)
        stored_s = time.monotonic() - began
        await _indexed(memory)
        indexed_s = time.monotonic() - began
        rankings, took_ms, degraded = await _recall(clients, data.questions, turn_ids, limit, preset)
        ablated: dict[str, Rankings] = {}
        for name, weights in ABLATIONS.items() if ablate else ():
            _progress(f"{data.name}: without {name}")
            for tenant in tenants.values():
                await memory.tenants.update(tenant, recall_weights=weights)
            ablated[name], _, lost = await _recall(clients, data.questions, turn_ids, limit, preset)
            degraded += lost
        linked: dict[str, Rankings] = {}
        for name, links_of in LINKS.items() if graph else ():
            _progress(f"{data.name}: with links by {name}")
            of_memories = {turn: memory_id for memory_id, turn in turn_ids.items()}
            for store, tenant in tenants.items():
                soma = memory.bound(key=keys[tenant], tenant=tenant)
                job = await soma.create_import()
                await soma.import_records(job.import_id, links_of(data.stores[store], of_memories))
                await memory.tenants.update(tenant, recall_weights={"graph": GRAPH_WEIGHT})
            linked[name], _, lost = await _recall(clients, data.questions, turn_ids, limit, preset)
            degraded += lost
    median, high = np.percentile(took_ms, [50, 95])
    return Measured(data.turns / stored_s, indexed_s, (float(median), float(high)), degraded, rankings, ablated, linked)


async def _open_tenants(stack: EmbeddedStack, names: Sequence[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    async with SomaClient.connect(stack.memory_address, key=stack.development_key) as memory:
        for name in names:
            try:
                await memory.tenants.create(name)
            except TenantExistsError:
                sys.exit(f"tenant {name} holds an earlier run: give another --data-dir")
            keys[name] = (await memory.tenants.create_key(name, label="bench")).bearer
    return keys


async def _store(soma: SomaClient, turns: Sequence[Turn]) -> dict[str, str]:
    """Stores the turns of one conversation; returns memory id to turn id."""
    memories = [
        Memory(
            memory_id=new_memory_id(),
            text=turn.text,
            actor=turn.actor,
            session_id=turn.session,
            sequence=turn.sequence,
            occurred_at=turn.at,
        )
        for turn in turns
    ]
    async for outcome in soma.remember_many(memories):
        if outcome.error is not None:
            raise outcome.error
    return {memory.memory_id: turn.turn_id for memory, turn in zip(memories, turns, strict=True)}


async def _indexed(memory: SomaClient) -> None:
    async with asyncio.timeout(INDEXED_WITHIN_S):
        while (await memory.operator.index_status()).pending_rows:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.5)


async def _recall(
    clients: dict[str, SomaClient], questions: Sequence[Question], turn_ids: dict[str, str], limit: int, preset: Preset
) -> tuple[Rankings, list[float], int]:
    rankings: Rankings = {}
    took_ms: list[float] = []
    degraded = 0
    slots = asyncio.Semaphore(CONCURRENT_RECALLS)

    async def ask(question: Question) -> None:
        nonlocal degraded
        async with slots:
            began = time.monotonic()
            query = RecallQuery(text=question.text, limit=limit, preset=preset)
            answer = await clients[question.store].recall_all(query)
            took_ms.append((time.monotonic() - began) * 1000)
        degraded += answer.summary.degraded
        rankings[question.question_id] = [turn_ids[hit.memory.memory_id] for hit in answer.hits]

    async with asyncio.TaskGroup() as group:
        for question in questions:
            group.create_task(ask(question))
    return rankings, took_ms, degraded


def _tenant_name(data: str, store: str) -> str:
    return re.sub(r"[^a-z0-9._-]", "-", f"{data}-{store}".lower())[:63]


@contextlib.contextmanager
def _place(given: Path | None) -> Iterator[Path]:
    """Where the stack keeps its data: as told, or in a directory that is gone afterwards."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="soma-bench-", ignore_cleanup_errors=True) as temporary:
        # Postgres runs as a user of its own when we are root, and must be able to pass through.
        Path(temporary).chmod(0o755)
        yield Path(temporary) / "data"


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every data set on one stack, telling each as it is done; returns everything."""
    report: dict[str, Any] = {}
    with _place(options.data_dir) as place:
        sets = [read_dialogues(directory, options.stores) for directory in options.data]
        async with EmbeddedStack(place, StackSettings("127.0.0.1:0", "127.0.0.1:0")) as stack:
            for data in sets:
                _progress(
                    f"{data.name}: {len(data.stores)} stores, {data.turns} turns, {len(data.questions)} questions"
                )
                report[data.name] = await _compared(stack, data, options)
                if not options.json:
                    show(data.name, report[data.name])
    return report


async def _compared(stack: EmbeddedStack, data: Dialogues, options: argparse.Namespace) -> dict[str, Any]:
    measured = await measure(
        stack, data, options.limit, Preset(options.preset), ablate=options.ablate, graph=options.graph
    )
    _progress(f"{data.name}: the yardsticks")
    keyword, fused = await keyword_and_fused(data, options.limit)
    return {
        "turns": data.turns,
        "stores": len(data.stores),
        "stored_per_s": measured.stored_per_s,
        "indexed_s": measured.indexed_s,
        "recall_p50_ms": measured.recall_ms[0],
        "recall_p95_ms": measured.recall_ms[1],
        "degraded": measured.degraded,
        "rows": {
            "Soma": averages(data.questions, measured.rankings),
            "RRF60": averages(data.questions, fused),
            "BM25": averages(data.questions, keyword),
        },
        "without": {name: averages(data.questions, rankings)[TOTAL] for name, rankings in measured.ablated.items()},
        "linked": {name: averages(data.questions, rankings)[TOTAL] for name, rankings in measured.linked.items()},
    }


def show(name: str, report: dict[str, Any]) -> None:
    """Print one data set."""
    print(f"\n{name}: {report['stores']} stores, {report['turns']} turns")
    print(
        f"stored {report['stored_per_s']:.0f}/s, indexed after {report['indexed_s']:.1f} s, recall p50 "
        f"{report['recall_p50_ms']:.0f} ms p95 {report['recall_p95_ms']:.0f} ms ({CONCURRENT_RECALLS} at a time), "
        f"{report['degraded']} degraded answers"
    )
    groups = list(report["rows"]["Soma"])
    print(f"{'':<28}{'n':>6}" + "".join(f"{metric:>9}" for metric in NAMES))
    for group in [TOTAL, *sorted(each for each in groups if each != TOTAL)]:
        for pipeline, rows in report["rows"].items():
            values = rows[group]
            label = f"{group} {pipeline}"
            print(
                f"{label:<28}{values['n']:>6.0f}" + "".join(f"{values[metric]:>9.3f}" for metric in NAMES), flush=True
            )
    for name, values in report["without"].items():
        whole = report["rows"]["Soma"][TOTAL]
        gains = "".join(f"{whole[metric] - values[metric]:>+9.3f}" for metric in NAMES)
        print(f"{'gain of ' + name:<28}{values['n']:>6.0f}{gains}", flush=True)
    for name, values in report["linked"].items():
        whole = report["rows"]["Soma"][TOTAL]
        gains = "".join(f"{values[metric] - whole[metric]:>+9.3f}" for metric in NAMES)
        print(f"{'links by ' + name:<28}{values['n']:>6.0f}{gains}", flush=True)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", action="extend", required=True, metavar="DIR")
    parser.add_argument("--stores", type=int, help="only the first N stores of each data set")
    parser.add_argument("--limit", type=int, default=20, help="hits of a recall (default: 20)")
    parser.add_argument("--preset", default="balanced", choices=[preset.value for preset in Preset])
    parser.add_argument("--ablate", action="store_true", help="ask again without each signal")
    parser.add_argument("--graph", action="store_true", help="ask again with links and the graph leg")
    parser.add_argument("--data-dir", type=Path, help="keep the stack's data here")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    report = asyncio.run(run(options))
    if options.json:
        print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
