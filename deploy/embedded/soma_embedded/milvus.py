"""The engine of Milvus Lite as a process of its own, with the wire protocol of Milvus."""

from __future__ import annotations

import os
import shutil
import signal

import grpc
import grpc.aio

from soma_embedded.directory import DataDirectory
from soma_embedded.engines import milvus_engine
from soma_embedded.identity import listens
from soma_embedded.ports import LOOPBACK
from soma_embedded.program import Command, WrongProcessError

_LIST_COLLECTIONS = "/milvus.proto.milvus.MilvusService/ShowCollections"
# The answer's first field is its status; a status of no bytes is success.
_SUCCESS = b"\n\x00"


class Milvus:
    """The C++ engine of milvus-lite 2.5.1 on a loopback port; it knows no passwords."""

    name = "milvus"
    # It handles no signal: what is acknowledged is in its file already.
    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL
    stop_grace_s = 5.0
    first_attempts = 4

    def __init__(self, directory: DataDirectory, port: int) -> None:
        self.port = port
        self._home = directory.place("milvus")

    @property
    def uri(self) -> str:
        """The address pymilvus takes."""
        return f"http://{LOOPBACK}:{self.port}"

    async def prepare(self) -> Command:
        """The engine makes its file itself and finds its libraries beside its program."""
        engine = milvus_engine()
        library_path = "DYLD_LIBRARY_PATH" if os.uname().sysname == "Darwin" else "LD_LIBRARY_PATH"
        return Command(
            argv=(str(engine), str(self._home / "index.db"), f"{LOOPBACK}:{self.port}", "ERROR"),
            working_directory=self._home,
            environment={library_path: str(engine.parent)},
        )

    async def probe(self, pid: int) -> None:
        """Lists the collections, as pymilvus would; by hand because importing pymilvus takes seconds and 100 MB."""
        # gRPC servers share ports (SO_REUSEPORT): an older engine could answer half of the calls.
        if not listens(pid, self.port):
            raise WrongProcessError(f"process {pid} does not listen on port {self.port}")
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{self.port}") as channel:
            list_collections = channel.unary_unary(
                _LIST_COLLECTIONS, request_serializer=bytes, response_deserializer=bytes
            )
            answer: bytes = await list_collections(b"", timeout=4, wait_for_ready=True)
        if not answer.startswith(_SUCCESS):
            raise ConnectionError(f"Milvus refused to list its collections: {answer!r}")

    async def settle(self) -> None:
        """Nothing to set up: collections are made by who uses them."""

    def wipe(self) -> None:
        """Deletes the index; it can be rebuilt from Postgres."""
        shutil.rmtree(self._home)
        self._home.mkdir(mode=0o700)
