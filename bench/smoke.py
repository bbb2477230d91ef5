"""Every bench once, as small as it goes: that each still measures; what it finds at that size says nothing.

    ./dev bench smoke [NAME ...]

A bench that misses a limit at that size has measured all the same. Ends with a line `N passed, N failed`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

RUNS = {
    "recall": ("--sizes", "200", "--tenants", "2", "--queries", "20", "--rounds", "20"),
    "remember": ("--writes", "64", "--rounds", "1"),
    "brain": ("--rounds", "10", "--observations", "200", "--sessions", "4"),
    "graph": ("--links", "5000", "--rounds", "5"),
    "import": ("--records", "500", "--texts", "50", "--rounds", "1"),
    "telemetry": ("--seconds", "0.5", "--rounds", "1", "--callers", "4"),
    "limits": ("--memories", "200", "--seconds", "0.5", "--callers", "4"),
}
"""Benches that need no data of their own, and the sizes to run them at."""
MEASURED = {
    "recall": ("floor", "fast, memory server", "fast, brain", "balanced, memory server", "balanced, brain"),
    "remember": ("no-op call", "1 tenant", "50 tenants"),
    "brain": ("working recall", "observe, vectors supplied", "observe, texts alone", "remember", "recall", "memory"),
    "graph": ("one hop", "three hops", "path", "ingest"),
    "import": ("searchable/s", "durable to staged insert", "searchable texts to embedder", "recall p95 to quiet"),
    "telemetry": ("shipped", "by itself"),
    "limits": ("indexed, embedding included", "embedding of one text", "bytes a memory"),
}
"""What each must tell of."""
LONGEST_S = 300.0
_MISSED = 1


def wrong(name: str) -> str:
    """Run one; what is wrong with it, empty if nothing."""
    command = [sys.executable, "-m", f"bench.{name}", *RUNS[name]]
    try:
        told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return f"did not end in {LONGEST_S:g} s"
    missing = [what for what in MEASURED[name] if what not in told.stdout]
    if told.returncode not in (0, _MISSED) or missing:
        said = "\n".join((told.stdout + told.stderr).splitlines()[-40:])
        return f"exit {told.returncode}, told nothing of {missing}\n{said}" if missing else said
    return ""


def main() -> int:
    """Run the named ones, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(RUNS)}")
    names = parser.parse_args().names or list(RUNS)
    if unknown := [name for name in names if name not in RUNS]:
        parser.error(f"no such bench: {', '.join(unknown)}")
    failed = 0
    for name in names:
        began = time.monotonic()
        found = wrong(name)
        failed += bool(found)
        print(f"{name}: {found or 'measured'} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(names) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
