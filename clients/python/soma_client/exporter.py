"""Exports that finish: a tenant's records into a file, over as many streams as it takes, with a manifest.

    async with SomaClient.connect(key=key) as soma:
        manifest = await Exporter(soma, Path("memories.jsonl")).run()

Until all is there the records stand in ``memories.jsonl.part``, and beside it what a later process needs to go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO

from soma.batch.v1 import batch_service_pb2 as pb
from soma_client.batch import BatchCalls
from soma_client.calling import may_resume
from soma_client.export_tables import write_parquet
from soma_client.naming import filter_in
from soma_client.record_json import line_of, record_of_line
from soma_client.tables import need_parquet
from soma_contract.convert.filters import filter_to_pb
from soma_contract.errors import CursorInvalidError, FieldViolationError, SomaError
from soma_contract.filters import EVERYTHING, Filter

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0
PATIENCE_S = 120.0
KEEP_EVERY_S = 1.0
FORM = "soma-export/1"


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What is exported."""

    filter: Filter = EVERYTHING
    embeddings: bool = True
    links: bool = True


@dataclass(frozen=True, slots=True)
class Exported:
    """How far an export is."""

    memories: int = 0
    links: int = 0
    bytes: int = 0
    revision: int = 0
    cursor: str = ""
    interruptions: int = 0
    """How often it was taken up again; with none, all records are of one revision."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export holds, and how to see that it is whole."""

    form: str
    file: str
    format: str
    memories: int
    links: int
    bytes: int
    sha256: str
    """Of the file."""
    content_sha256: str
    """Of the records as they are, in their order: equal for equal content, whatever the file's format."""
    revision: int
    interruptions: int
    embeddings: bool
    exported_at: str

    def write(self, path: Path) -> None:
        """Write it."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


@dataclass(slots=True)
class Content:
    """The checksum of records as they are."""

    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, record: pb.Record) -> None:
        """Take in the next record."""
        wire = record.SerializeToString(deterministic=True)
        self._digest.update(len(wire).to_bytes(4, "big") + wire)

    def hexdigest(self) -> str:
        """The checksum so far."""
        return self._digest.hexdigest()


class Exporter:
    """One export into one file.

    With ``resume`` what an earlier process left is gone on with.  ``on_progress`` is called after every frame.
    Without a frame for ``patience_s`` it gives up with the error at hand; running it again with ``resume`` goes on.
    """

    def __init__(
        self,
        soma: BatchCalls,
        path: Path,
        *,
        settings: ExportSettings = ExportSettings(),
        resume: bool = False,
        on_progress: Callable[[Exported], None] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self.progress = Exported()
        self._state = path.with_name(f"{path.name}.part.json")
        self._soma = soma
        self._settings = settings
        self._resume = resume
        self._on_progress = on_progress
        self._patience_s = patience_s
        self._kept_at = 0.0

    async def run(self, format: str = "jsonl") -> Manifest:
        """Export everything, put the file in its place, write the manifest beside it and return it.

        ``format`` is jsonl or parquet; Parquet is made of the whole export at its end.
        """
        if format == "parquet":
            need_parquet()
        await self._collected()
        content, digest = await asyncio.to_thread(checksums, self.part)
        if format == "parquet":
            await asyncio.to_thread(write_parquet, self.part, self.path)
            digest = await asyncio.to_thread(file_sha256, self.path)
            self.part.unlink()
        else:
            self.part.replace(self.path)
        return self._finished(format, digest, content)

    async def _collected(self) -> None:
        progress = self._begun()
        with self.part.open("r+b" if progress.bytes else "wb") as file:
            file.truncate(progress.bytes)
            file.seek(progress.bytes)
            await self._collect(file, progress)

    def _finished(self, format: str, digest: str, content: str) -> Manifest:
        manifest = Manifest(
            FORM,
            self.path.name,
            format,
            self.progress.memories,
            self.progress.links,
            self.path.stat().st_size,
            digest,
            content,
            self.progress.revision,
            self.progress.interruptions,
            self._settings.embeddings,
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        manifest.write(manifest_path(self.path))
        self._state.unlink(missing_ok=True)
        return manifest

    def _begun(self) -> Exported:
        if self._resume and self._state.exists():
            try:
                found = json.loads(self._state.read_text())
                asked, progress = found["asked"], Exported(**found["progress"])
            except (ValueError, KeyError, TypeError):
                raise FieldViolationError.at("resume", f"{self._state} is not the state of an export") from None
            if asked != self._asked():
                raise FieldViolationError.at("resume", "the export that was begun chose other records")
            if self.part.exists() and self.part.stat().st_size >= progress.bytes:
                return replace(progress, interruptions=progress.interruptions + 1)
        return Exported()

    async def _collect(self, file: IO[bytes], progress: Exported) -> None:
        self.progress, failed, moved_at = progress, 0, time.monotonic()
        while True:
            before = self.progress.bytes
            try:
                await self._stream(file)
                return
            except SomaError as error:
                if self.progress.bytes > before:
                    failed, moved_at = 0, time.monotonic()
                waited = time.monotonic() - moved_at
                if isinstance(error, CursorInvalidError) or not may_resume(error) or waited > self._patience_s:
                    raise
                await asyncio.sleep(max(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**failed), error.retry_after_s or 0.0))
                failed += 1
                if self.progress.cursor:
                    self.progress = replace(self.progress, interruptions=self.progress.interruptions + 1)
            finally:
                self._keep(file, force=True)

    async def _stream(self, file: IO[bytes]) -> None:
        settings = self._settings
        async for frame in self._soma.export_records(
            settings.filter,
            include_embeddings=settings.embeddings,
            include_links=settings.links,
            cursor=self.progress.cursor,
        ):
            await asyncio.to_thread(file.writelines, map(line_of, frame.records))
            links = sum(record.HasField("link") for record in frame.records)
            before = self.progress
            self.progress = replace(
                before,
                memories=before.memories + len(frame.records) - links,
                links=before.links + links,
                bytes=file.tell(),
                revision=frame.revision,
                cursor=frame.cursor,
            )
            self._keep(file)
            if self._on_progress is not None:
                self._on_progress(self.progress)

    def _keep(self, file: IO[bytes], *, force: bool = False) -> None:
        """Write down how far the file goes, once it does."""
        now = time.monotonic()
        if not force and now - self._kept_at < KEEP_EVERY_S:
            return
        self._kept_at = now
        file.flush()
        os.fsync(file.fileno())
        fresh = self._state.with_name(f"{self._state.name}.new")
        fresh.write_text(json.dumps({"asked": self._asked(), "progress": asdict(self.progress)}))
        fresh.replace(self._state)

    def _asked(self) -> str:
        settings = self._settings
        chosen = filter_to_pb(filter_in(settings.filter, self._soma.namespace))
        chosen_hex = chosen.SerializeToString(deterministic=True).hex()
        named = f"{chosen_hex} embeddings {settings.embeddings} links {settings.links}"
        return hashlib.sha256(named.encode()).hexdigest()


def manifest_path(path: Path) -> Path:
    """Where the manifest of a file stands."""
    return path.with_name(f"{path.name}.manifest.json")


def checksums(path: Path) -> tuple[str, str]:
    """(content, file): the checksums of a file of JSON lines."""
    content, digest = Content(), hashlib.sha256()
    with path.open("rb") as file:
        for line in file:
            digest.update(line)
            content.add(record_of_line(line))
    return content.hexdigest(), digest.hexdigest()


def file_sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
