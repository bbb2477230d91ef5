"""The local embedder: sentences a CPU-second beside fp32 in the same run, time a query, memory, cosine to fp32.

    ./dev bench embedder [--sentences N] [--json]

CPU seconds are this process's own, so other programs on the machine disturb the figures less than wall time; the
ratio to fp32 is disturbed least.  Memory is read before the fp32 model is loaded; a first run, which builds the model,
needs more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from soma_contract.embedders import Priority
from soma_contract.embedders.encoder import Encoder, open_session
from soma_contract.embedders.graph import build_model
from soma_contract.embedders.local import LocalEmbedder
from soma_contract.embedders.wheel import model_files
from soma_contract.tokenizer import count_tokens

_PEOPLE = ("Maya", "the plumber", "my neighbour Tom", "our landlord", "Dr. Okafor", "the new intern")
_DEEDS = ("called about", "forgot to bring", "finally repaired", "asked me to return", "paid too much for")
_THINGS = ("the kitchen window", "two tickets to the museum", "a blue bicycle", "the signed lease", "her old laptop")
_WHENS = ("on a rainy Tuesday in March", "right before the holidays began", "while we were stuck in traffic")


def sentences(count: int) -> list[str]:
    """Different sentences of about thirty tokens."""
    return [
        f"{_PEOPLE[n % 6]} {_DEEDS[n % 5]} {_THINGS[n // 5 % 5]} {_WHENS[n // 3 % 3]}, so note {n} says that we should "
        f"check again next week."
        for n in range(count)
    ]


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of one run."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak_resident_mb() -> float:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


async def measure(count: int, cache_dir: Path | None) -> dict[str, float]:
    """Run everything once."""
    texts = sentences(count)
    figures: dict[str, float] = {"tokens a sentence": float(np.mean([count_tokens(text) + 2 for text in texts]))}
    start = time.perf_counter()
    async with LocalEmbedder(cache_dir) as embedder:
        figures["load s"] = time.perf_counter() - start
        await embedder.embed(texts[:64], priority=Priority.BULK)
        for name, with_tokens in (("sentences / CPU s", False), ("sentences / CPU s, with tokens", True)):
            start = time.process_time()
            await embedder.embed(texts, with_tokens=with_tokens, priority=Priority.BULK)
            figures[name] = count / (time.process_time() - start)
        waits = []
        for number in range(200):
            start = time.perf_counter()
            await embedder.embed([f"what did Maya say about the lease of flat {number}?"], with_tokens=True)
            waits.append((time.perf_counter() - start) * 1e3)
        figures["query ms p50"], figures["query ms p95"] = (float(np.percentile(waits, q)) for q in (50, 95))
        figures["peak resident MB"] = peak_resident_mb()

    weights = load_file(model_files().weights)
    small = Encoder(open_session(build_model(weights)))
    exact = Encoder(open_session(build_model(weights, quantise=False)))
    rows = [small.pieces(text) for text in texts[:256]]
    # In turns, so that whatever else the machine does slows both.
    turns = [(cpu_s(lambda: small.dense(rows)), cpu_s(lambda: exact.dense(rows))) for _ in range(3)]
    figures["speed against fp32"] = float(np.median([slow / fast for fast, slow in turns]))
    cosines = (small.dense(rows) * exact.dense(rows)).sum(axis=1)
    figures["cosine to fp32, mean"], figures["cosine to fp32, min"] = float(cosines.mean()), float(cosines.min())
    return figures


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=1_000)
    parser.add_argument("--cache-dir", type=Path, help="where the built model is kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.sentences, arguments.cache_dir))
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:34} {value:10.3f}" if value < 10 else f"{name:34} {value:10.1f}")


if __name__ == "__main__":
    main()
