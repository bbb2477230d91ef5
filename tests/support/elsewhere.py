"""The stores that tests use: those of deploy/compose.yaml where a container engine answers, else the embedded ones.

``SOMA_TEST_STORES`` says ``embedded`` or ``containers`` instead; stores that run already are named by
``SOMA_TEST_POSTGRES_ADMIN_URL``, ``SOMA_TEST_REDIS_URL`` and ``SOMA_TEST_MILVUS_URI``, all three together.
Tests that kill, freeze or wipe a store do that to embedded ones, wherever the others are.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.support.compose import DEPLOY

NAMES = ("SOMA_TEST_POSTGRES_ADMIN_URL", "SOMA_TEST_REDIS_URL", "SOMA_TEST_MILVUS_URI")
APPLICATION = "soma_app"
_ANSWERS_S = 10.0
_APPLICATION_PASSWORD = "application"
BESIDE = Path(__file__).with_name("compose.tests.yaml")
"""What compose is told beside deploy/compose.yaml, so that the stores can be reached."""
PORTS = {"postgres": 5432, "redis": 6379, "milvus": 19530}
"""Services of compose.yaml, and where each listens in its container."""
_PASSWORD = re.compile(r"^(\w+_PASSWORD)=", re.MULTILINE)


class StoresMisnamedError(Exception):
    """The environment names stores that cannot be used as it says."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Stores that are not this run's own processes, by their addresses."""

    postgres_admin_url: str
    redis_url: str
    milvus_uri: str

    @classmethod
    def named(cls, environment: Mapping[str, str]) -> Self | None:
        """The stores that the environment names, None if it names none; raises StoresMisnamedError for some of them."""
        given = [name for name in NAMES if environment.get(name)]
        if not given:
            return None
        if missing := [name for name in NAMES if name not in given]:
            raise StoresMisnamedError(f"{', '.join(given)} without {', '.join(missing)}: name all stores or none")
        return cls(*(environment[name] for name in NAMES))

    async def create_database(self, name: str) -> tuple[str, str]:
        """Make a database of this name and the application's role; returns (application url, owner url)."""
        connection: asyncpg.Connection = await asyncpg.connect(self.postgres_admin_url)
        try:
            await connection.execute(f"CREATE DATABASE {name}")
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", APPLICATION):
                await connection.execute(f"CREATE ROLE {APPLICATION} LOGIN")
            await connection.execute(f"ALTER ROLE {APPLICATION} PASSWORD '{_APPLICATION_PASSWORD}'")
        finally:
            await connection.close()
        owner = urlsplit(self.postgres_admin_url)._replace(path=f"/{name}")
        place = owner.netloc.rpartition("@")[2]
        application = owner._replace(netloc=f"{APPLICATION}:{_APPLICATION_PASSWORD}@{place}")
        return urlunsplit(application), urlunsplit(owner)

    async def drop_database(self, name: str) -> None:
        """Drop a database with every connection to it."""
        connection: asyncpg.Connection = await asyncpg.connect(self.postgres_admin_url)
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        finally:
            await connection.close()


def engine_answers() -> bool:
    """Whether there is a container engine, with the command line that compose needs."""
    if shutil.which("docker") is None:
        return False
    try:
        return all(
            subprocess.run(["docker", *asked], capture_output=True, timeout=_ANSWERS_S).returncode == 0
            for asked in (["info"], ["compose", "version"])
        )
    except subprocess.TimeoutExpired:
        return False


def in_containers(environment: Mapping[str, str], answers: Callable[[], bool] = engine_answers) -> bool:
    """Whether tests are to run on containers; raises StoresMisnamedError where they are asked for and cannot run."""
    wanted = environment.get("SOMA_TEST_STORES", "")
    if wanted not in ("", "embedded", "containers"):
        raise StoresMisnamedError(f"SOMA_TEST_STORES is {wanted!r}: say embedded, containers or nothing")
    if wanted == "embedded":
        return False
    found = answers()
    if wanted and not found:
        raise StoresMisnamedError("SOMA_TEST_STORES asks for containers, and no container engine answers")
    return found


@contextlib.contextmanager
def composed_stores() -> Iterator[Elsewhere]:
    """Postgres, Redis and Milvus of deploy/compose.yaml, in containers, gone with their volumes afterwards."""
    # Here, since it takes longer to import than most tests take.
    from testcontainers.compose import DockerCompose

    passwords = {name: secrets.token_hex(16) for name in _PASSWORD.findall((DEPLOY / "env.example").read_text())}
    with tempfile.TemporaryDirectory(prefix="soma-test-") as directory:
        env_file = Path(directory) / "passwords.env"
        env_file.touch(0o600)
        env_file.write_text("".join(f"{name}={word}\n" for name, word in passwords.items()))
        project = f"soma-test-{secrets.token_hex(4)}"
        compose = DockerCompose(
            context=DEPLOY,
            compose_file_name=["compose.yaml", str(BESIDE)],
            env_file=str(env_file),
            services=[*PORTS],
        )
        with _named_project(project), compose:
            # Down with all of the project, also what the stores need and the network.
            compose.services = None
            places = {name: f"127.0.0.1:{compose.get_service_port(name, port)}" for name, port in PORTS.items()}
            yield Elsewhere(
                f"postgresql://soma_owner:{passwords['POSTGRES_OWNER_PASSWORD']}@{places['postgres']}/soma",
                f"redis://:{passwords['REDIS_PASSWORD']}@{places['redis']}/0",
                f"http://{places['milvus']}",
            )


@contextlib.contextmanager
def _named_project(name: str) -> Iterator[None]:
    """Keep what these tests start apart from the stack that somebody runs of the same file."""
    before = os.environ.get("COMPOSE_PROJECT_NAME")
    os.environ["COMPOSE_PROJECT_NAME"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["COMPOSE_PROJECT_NAME"]
        else:
            os.environ["COMPOSE_PROJECT_NAME"] = before
