"""Writes generated/soma, clients/service_config.json and deploy/envoy/soma.binpb from protos/.

    python scripts/generate.py            write what is stale
    python scripts/generate.py --check    write nothing; list what is stale and exit 1 if anything is

The compiler and its plugins live in an environment of their own, .venv-codegen/, which this script makes from
requirements/codegen.lock on first use: they need an older protobuf than the servers run on. The same protos and lock
give the same bytes everywhere.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "generated" / "soma"
SERVICE_CONFIG = ROOT / "clients" / "service_config.json"
DESCRIPTORS = ROOT / "deploy" / "envoy" / "soma.binpb"  # what Envoy turns JSON into protobuf by
LOCK = ROOT / "requirements" / "codegen.lock"
VENV = ROOT / ".venv-codegen"
PYTHON = VENV / "bin" / "python"

# Streams that live as long as their caller wants: no deadline of ours fits them.
UNBOUNDED = {"Watch", "ExportRecords", "ExportSubject", "StreamAuditLog"}


# --- the environment -------------------------------------------------------------------------------------------


def ready() -> None:
    """Returns when .venv-codegen holds exactly requirements/codegen.lock for this interpreter and place."""
    stamp = VENV / ".installed"
    wanted = hashlib.sha256(f"{VENV}\0{sys.version}\0".encode() + LOCK.read_bytes()).hexdigest()
    with (ROOT / ".venv-codegen.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"creating {VENV.name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        pip: list[str | Path] = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "-r", LOCK], check=True)
        stamp.write_text(wanted)


# --- the stubs -------------------------------------------------------------------------------------------------


def compile_protos(into: Path) -> FileDescriptorSet:
    """Runs the compiler over every proto; returns the descriptors of all of them, imports included."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    descriptors = into / "descriptors.binpb"
    command: list[str | Path] = [
        PYTHON,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTOS}",
        *(f"--plugin={name}={VENV / 'bin' / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
        f"--python_out={into}",
        f"--grpc_python_out={into}",
        f"--mypy_out=quiet:{into}",
        f"--mypy_grpc_out=quiet:{into}",
        f"--descriptor_set_out={descriptors}",
        "--include_imports",
        *sorted(PROTOS.rglob("*.proto")),
    ]
    subprocess.run(command, check=True, cwd=ROOT)
    return FileDescriptorSet.FromString(descriptors.read_bytes())


def stubs(compiled: Path, files: list[FileDescriptorProto]) -> dict[Path, bytes]:
    """Path below the root -> contents; the empty _pb2_grpc modules of protos without a service are left out."""
    empty = {f"{file.name.removesuffix('.proto')}_pb2_grpc" for file in files if not file.service}
    found = {}
    for path in sorted((compiled / "soma").rglob("*.py*")):
        name = path.relative_to(compiled)
        if name.with_suffix("").as_posix() not in empty:
            found[STUBS.parent / name] = path.read_bytes()
    return found


# --- the retry policies ----------------------------------------------------------------------------------------


def policy(method: MethodDescriptorProto) -> dict[str, Any]:
    """How a channel may treat calls of a method, from its shape and its idempotency level.

    Only UNAVAILABLE is retried, and gRPC itself never retries a stream whose first message has arrived. Streams that
    the caller feeds are resumed by the client, which knows what was acknowledged, never by the channel.
    """
    levels = method.options
    repeatable = levels.idempotency_level in {levels.NO_SIDE_EFFECTS, levels.IDEMPOTENT}
    reads = levels.idempotency_level == levels.NO_SIDE_EFFECTS
    found: dict[str, Any] = {"waitForReady": True}
    if method.client_streaming:
        return found
    if method.server_streaming:
        attempts, first, longest, timeout = 3, "0.05s", "1s", "30s"
    elif reads:
        attempts, first, longest, timeout = 4, "0.05s", "1s", "5s"
    else:
        attempts, first, longest, timeout = 4, "0.1s", "2s", "10s"
    if method.name not in UNBOUNDED:
        found["timeout"] = timeout
    if repeatable:
        found["retryPolicy"] = {
            "maxAttempts": attempts,
            "initialBackoff": first,
            "maxBackoff": longest,
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    return found


def service_config(files: list[FileDescriptorProto]) -> dict[str, Any]:
    """A gRPC service config for every rpc, methods with equal policies together."""
    groups: dict[str, dict[str, Any]] = {}
    for file in files:
        for service in file.service:
            for method in service.method:
                chosen = policy(method)
                group = groups.setdefault(json.dumps(chosen), {"name": [], **chosen})
                group["name"].append({"service": f"{file.package}.{service.name}", "method": method.name})
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        "methodConfig": [groups[key] for key in sorted(groups)],
    }


# --- what Envoy knows ------------------------------------------------------------------------------------------


def with_error_details(descriptors: FileDescriptorSet) -> bytes:
    """The descriptors of every proto and of what errors are made of, each file after those it imports."""
    from google.protobuf import any_pb2, duration_pb2
    from google.rpc import error_details_pb2, status_pb2

    known = {file.name for file in descriptors.file}
    for module in (any_pb2, duration_pb2, error_details_pb2, status_pb2):
        if module.DESCRIPTOR.name not in known:
            module.DESCRIPTOR.CopyToProto(descriptors.file.add())
    return descriptors.SerializeToString(deterministic=True)


# --- writing and comparing -------------------------------------------------------------------------------------


def generate() -> dict[Path, bytes]:
    """Everything that protos/ decides: absolute path -> contents."""
    with tempfile.TemporaryDirectory() as directory:
        descriptors = compile_protos(Path(directory))
        files = [file for file in descriptors.file if file.package.startswith("soma.")]
        files.sort(key=lambda file: file.name)
        found = stubs(Path(directory), files)
    found[DESCRIPTORS] = with_error_details(descriptors)
    found[SERVICE_CONFIG] = (json.dumps(service_config(files), indent=2) + "\n").encode()
    return found


def stale(wanted: dict[Path, bytes]) -> Iterator[Path]:
    """What is missing, different, or there although no proto asks for it."""
    for path, contents in wanted.items():
        if not path.exists() or path.read_bytes() != contents:
            yield path
    for path in sorted(STUBS.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path not in wanted:
            yield path


def write(path: Path, contents: bytes) -> None:
    """Replaces a file in one step, so that nobody imports half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as draft:
        draft.write(contents)
    Path(draft.name).chmod(0o644)
    Path(draft.name).replace(path)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if anything is stale")
    options = parser.parse_args(arguments)
    wanted = generate()
    found = list(stale(wanted))
    for path in found:
        print(f"{'stale' if options.check else 'wrote' if path in wanted else 'removed'} {path.relative_to(ROOT)}")
        if options.check:
            continue
        if path in wanted:
            write(path, wanted[path])
        else:
            path.unlink()
    if options.check and found:
        print("run ./dev generate and commit what it wrote")
        return 1
    return 0


if __name__ == "__main__":
    if Path(sys.prefix) != VENV:
        ready()
        os.execv(PYTHON, [str(PYTHON), __file__, *sys.argv[1:]])  # noqa: S606
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as failure:
        sys.exit(failure.returncode)
