"""./dev test-polyglot: the clients of all languages against one running stack.

Builds each client with its language's own tools, lets each run the same scenario as a tenant of its own, and compares
what it prints with what Python printed, byte for byte. Then ghz sends a few hundred calls at once. Ends with
``N passed, N failed``. A language whose tools are not on this machine is named at the end; where CI=true that is a
failure.

    ./dev test-polyglot [LANGUAGE … | ghz]
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from scripts.tools import ToolMissingError, tool
from soma_embedded.stack import EmbeddedStack
from tests.polyglot import load
from tests.polyglot.languages import LANGUAGES, PYTHON, ROOT, Language
from tests.polyglot.transcripts import difference, unnoticed
from tests.support.cutting import CuttingProxy
from tests.support.stack import RANDOM_PORTS, Office, opened
from tests.support.stores import data_directory

CUT_AFTER_BYTES = 120_000
"""Somewhere among the 250 KB that an import sends."""
BUILD_S = 900.0
SCENARIO_S = 180.0
BUILDS_AT_ONCE = 2
BUILD_TRIES = 2
"""A package registry may be away for a moment."""


class Tally:
    """What passed and what failed, told as it happens."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self.missing: list[str] = []

    def note(self, what: str, fault: str, took_s: float) -> bool:
        """One result; an empty fault is a pass."""
        print(f"{'FAIL' if fault else 'ok  '} {what} ({took_s:.1f} s)", flush=True)
        if fault:
            self.failed += 1
            print(fault, flush=True)
        else:
            self.passed += 1
        return not fault


async def ran(command: list[str], directory: Path, environment: dict[str, str], within_s: float) -> tuple[bytes, str]:
    """(what it printed, what went wrong) of one command."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(within_s):
            printed, complaints = await process.communicate()
    except TimeoutError:
        process.kill()
        printed, complaints = await process.communicate()
        complaints += f"\nended after {within_s:.0f} s".encode()
    if process.returncode == 0:
        return printed, ""
    told = (printed + complaints).decode(errors="replace").strip()
    return printed, f"{' '.join(command)} ended with {process.returncode}:\n{told[-6000:]}"


async def built(language: Language, gate: asyncio.Semaphore, tally: Tally) -> bool:
    """Build one client."""
    async with gate:
        began, fault = time.monotonic(), ""
        for command in language.build:
            for _ in range(BUILD_TRIES):
                _, fault = await ran(["nice", *command], language.directory, dict(os.environ), BUILD_S)
                if not fault:
                    break
            if fault:
                break
        return tally.note(f"{language.name}: generated and built", fault, time.monotonic() - began)


async def found_ghz(gate: asyncio.Semaphore, tally: Tally) -> Path | None:
    """The load generator, built by Go if it was not before."""
    async with gate:
        try:
            return await asyncio.to_thread(tool, "ghz")
        except ToolMissingError as missing:
            tally.missing.append(f"the load smoke did not run: {missing}")
            return None


async def transcript(language: Language, office: Office) -> tuple[bytes, str]:
    """(transcript, fault) of a language's scenario, as a tenant of its own, through a network that breaks once."""
    agent, foreign = await office.agent(), await office.agent()
    async with CuttingProxy(office.stack.brain_address, after_bytes=CUT_AFTER_BYTES) as cutting:
        environment = {
            **os.environ,
            "SOMA_TARGET": office.stack.brain_address,
            "SOMA_IMPORT_TARGET": cutting.address,
            "SOMA_KEY": dict(agent.metadata)["authorization"].removeprefix("Bearer "),
            "SOMA_TENANT": agent.tenant,
            "SOMA_FOREIGN_TENANT": foreign.tenant,
        }
        printed, fault = await ran(list(language.run), language.directory, environment, SCENARIO_S)
        if not fault and cutting.cuts != 1:
            fault = f"the import was to be cut once and was cut {cutting.cuts} times"
    return printed, fault


async def compared(languages: list[Language], ghz: Path | None, tally: Tally) -> None:
    """Run the scenarios one after the other on one stack, then the load."""
    with data_directory() as path:
        async with EmbeddedStack(path / "data", RANDOM_PORTS) as stack:
            office = await opened(stack)
            try:
                began = time.monotonic()
                expected, fault = await transcript(PYTHON, office)
                if not tally.note("Python: the scenario", fault, time.monotonic() - began):
                    return
                overlooked = unnoticed(expected)
                tally.note(
                    f"any other byte among the {len(expected)} of a transcript is noticed",
                    f"not at {overlooked}" if overlooked else "",
                    0.0,
                )
                for language in languages:
                    began = time.monotonic()
                    actual, fault = await transcript(language, office)
                    fault = fault or difference(expected, actual)
                    tally.note(f"{language.name}: the scenario, as in Python", fault, time.monotonic() - began)
                if ghz is not None:
                    began = time.monotonic()
                    fault = await load.smoke(ghz, office)
                    tally.note("ghz: every call answered, every write there", fault, time.monotonic() - began)
            finally:
                await office.brain.close()
                await office.memory.close()


async def run(names: list[str]) -> int:
    """Run the named languages, all if none is named; returns the exit code."""
    known = [*(language.name.lower() for language in LANGUAGES), "ghz"]
    if unknown := set(names) - set(known):
        print(f"unknown: {' '.join(sorted(unknown))}; there are {' '.join(known)}")
        return 2
    tally = Tally()
    gate = asyncio.Semaphore(BUILDS_AT_ONCE)
    wanted: list[Language] = []
    for language in LANGUAGES:
        if names and language.name.lower() not in names:
            continue
        if missing := language.missing():
            tally.missing.append(f"{language.name} did not run: {' and '.join(missing)} is missing")
        else:
            wanted.append(language)
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        builds = {language.name: group.create_task(built(language, gate, tally)) for language in wanted}
        ghz = group.create_task(found_ghz(gate, tally)) if not names or "ghz" in names else None
    print(f"built after {time.monotonic() - began:.0f} s", flush=True)
    well = [language for language in wanted if builds[language.name].result()]
    await compared(well, ghz.result() if ghz else None, tally)
    for absence in tally.missing:
        print(absence)
    if os.environ.get("CI") == "true":
        tally.failed += len(tally.missing)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(asyncio.run(run([name.lower() for name in sys.argv[1:]])))
