"""The committed stubs are what the protos say, and load on what the servers run on."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.contract.buf import ROOT

STUBS = ROOT / "generated" / "soma"


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """scripts/generate.py, with a directory of its own to write to."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "scripts" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "STUBS", tmp_path / "soma")
    return module


def test_the_stubs_are_fresh() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )

    assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr


def test_missing_changed_and_left_over_stubs_are_stale(generator: ModuleType, tmp_path: Path) -> None:
    same, changed, missing, left_over = (tmp_path / "soma" / name for name in ("a.py", "b.py", "c.py", "d.py"))
    wanted = {same: b"same", changed: b"new", missing: b"new"}
    generator.write(same, b"same")
    generator.write(changed, b"old")
    generator.write(left_over, b"old")
    generator.write(tmp_path / "soma" / "__pycache__" / "a.pyc", b"cache")

    assert list(generator.stale(wanted)) == [changed, missing, left_over]


def test_only_services_have_grpc_modules() -> None:
    modules = {path.name for path in STUBS.rglob("*_pb2_grpc.py")}
    services = {path.name for path in (ROOT / "protos").rglob("*_service.proto")}

    assert modules == {name.replace(".proto", "_pb2_grpc.py") for name in services}


def test_every_module_loads() -> None:
    names = sorted(".".join(path.relative_to(STUBS.parent).with_suffix("").parts) for path in STUBS.rglob("*_pb2*.py"))

    loaded = [importlib.import_module(name) for name in names]

    assert [module.__name__ for module in loaded] == names
    assert names


def test_the_floors_are_what_the_stubs_demand() -> None:
    text = "".join(path.read_text() for path in STUBS.rglob("*.py"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = {
        requirement.name: Version(bound.version)
        for requirement in map(Requirement, project["dependencies"])
        for bound in requirement.specifier
        if bound.operator == ">="
    }

    grpc = set(re.findall(r"GRPC_GENERATED_VERSION = '([^']+)'", text))
    protobuf = set(re.findall(r"_runtime_version\.Domain\.PUBLIC,\s*(\d+),\s*(\d+),\s*(\d+)", text))

    assert {Version(version) for version in grpc} == {floors["grpcio"]}
    assert {Version(".".join(version)) for version in protobuf} == {floors["protobuf"]}
