"""Checks that requirements/*.lock say what pyproject.toml asks for, completely, with hashes and without hosts."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
Locked = dict[NormalizedName, list[Requirement]]


def read_lock(path: Path) -> Locked:
    """Name -> its pins (several when markers choose among them)."""
    pins: Locked = {}
    for line in path.read_text().replace("\\\n", " ").splitlines():
        text = line.split(" --hash=")[0].strip()
        if text:
            pin = Requirement(text)
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def pinned_version(pin: Requirement) -> Version:
    (specifier,) = pin.specifier
    return Version(specifier.version)


def missing(asked: list[str], locked: Locked, lock: str) -> list[str]:
    """What is asked for and not pinned, or pinned to a version that does not answer the request."""
    faults = []
    for text in asked:
        requirement = Requirement(text)
        pins = locked.get(canonicalize_name(requirement.name))
        if pins is None:
            faults.append(f"{lock} has no {requirement.name}, which is asked for as {text!r}")
            continue
        faults += [
            f"{lock} pins {pin}, but {text!r} is asked for"
            for pin in pins
            if not requirement.specifier.contains(pinned_version(pin), prereleases=True)
        ]
    return faults


def incomplete(locked: Locked, left_out: set[NormalizedName], lock: str) -> list[str]:
    """What an installed pin requires here and the lock lacks: --no-deps would not install it."""
    faults = []
    for name in locked:
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for text in requires:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            needed = canonicalize_name(requirement.name)
            if needed not in locked and needed not in left_out:
                faults.append(f"{lock} has {name} but not {needed}, which it requires")
    return faults


def malformed(path: Path) -> list[str]:
    text = path.read_text()
    faults = [f"{path.name} names a host: {line}" for line in text.splitlines() if "://" in line]
    return faults + [
        f"{path.name} has an entry without a pin or a hash: {entry.splitlines()[0]}"
        for entry in re.split(r"\n(?=\S)", text.strip())
        if "--hash=sha256:" not in entry or "==" not in entry
    ]


def check() -> list[str]:
    """Every fault found, one line each; empty when the locks are in order."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    requirements = ROOT / "requirements"
    model = [line for line in (requirements / "model.in").read_text().splitlines() if line and not line.startswith("#")]
    left_out = {canonicalize_name(Requirement(text).name) for text in pyproject["tool"]["uv"]["override-dependencies"]}
    runtime = read_lock(requirements / "runtime.lock")
    dev = read_lock(requirements / "dev.lock")
    asked = [*project["dependencies"], *model]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    faults = [fault for path in sorted(requirements.glob("*.lock")) for fault in malformed(path)]
    faults += missing(asked, runtime, "runtime.lock")
    faults += missing([*asked, *extras], dev, "dev.lock")
    faults += incomplete(runtime, left_out, "runtime.lock") + incomplete(dev, left_out, "dev.lock")
    for name, pins in runtime.items():
        if {pinned_version(pin) for pin in pins} - {pinned_version(pin) for pin in dev.get(name, [])}:
            faults.append(f"runtime.lock and dev.lock differ on {name}")
    faults += [f"{name} is locked but must be left out" for name in sorted(left_out & set(dev))]
    return faults


if __name__ == "__main__":
    found = check()
    for fault in found:
        print(fault)
    if found:
        print("run ./dev lock")
    sys.exit(1 if found else 0)
