"""Imports that finish: a source's records over as many streams as it takes, each stored exactly once.

    source = Files([Path("notes.jsonl")], JsonLines())
    async with SomaClient.connect(key=key) as soma:
        report = await Importer(soma, source, state=Path("notes.import")).run()

A connection that breaks, a server that restarts and (with a state file) a process that ends are taken up where the
server's last commit is.  What is in memory is what the server's credit allows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from rpckit.metadata import new_request_id
from soma.batch.v1 import batch_service_pb2 as pb
from soma_client.batch import BatchCalls
from soma_client.import_run import PATIENCE_S, ImportRun
from soma_client.import_state import ImportState, read_state, write_state
from soma_client.source_feed import SourceFeed, read_item
from soma_client.sources import Item, Mark, Source, original
from soma_contract.convert.item_errors import item_error_from_pb
from soma_contract.errors import SomaError
from soma_contract.limits import LIMITS

KEEP_EVERY_S = 1.0
_OVER = ("TOO_MANY_REFUSED", "IMPORT_NOT_ACTIVE", "IMPORT_NOT_FOUND")
"""Reasons after which there is no import to go on with."""


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """How an import is to go; ``on_conflict`` is skip, overwrite or fail, ``max_refused`` None is no bound."""

    on_conflict: str = "skip"
    max_refused: int | None = None
    dry_run: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is; ``reached`` of ``size`` is in the source's own unit."""

    committed: int = 0
    stored: int = 0
    refused: int = 0
    index_lag: int = 0
    reached: int = 0
    size: int = 0
    reconnects: int = 0
    resumed_at: int = 0
    """Records that were committed before this process began."""


@dataclass(frozen=True, slots=True)
class RefusedItem:
    """A record that was refused: its place in the import and in the source, why, and what stood there."""

    offset: int
    place: str
    error: SomaError
    value: object


def refused_line(refused: RefusedItem) -> bytes:
    """A refused record as a line of JSON: where it stood, why it was refused, and what it was."""
    error = refused.error
    told: dict[str, object] = {
        "offset": refused.offset,
        "place": refused.place,
        "reason": error.reason,
        "message": error.message,
        "violations": [{"field": name, "description": said} for name, said in error.violations],
        "record": original(refused.value),
    }
    return orjson.dumps(told, default=str, option=orjson.OPT_APPEND_NEWLINE)


class Importer:
    """One import of one source.

    ``state`` names a file in which the import is found again by the next process; it is gone when the import is done.
    ``on_progress`` is called after every acknowledgement.  Without progress for ``patience_s`` the import gives up
    with the error at hand; nothing is lost then, running it again goes on.  Chunks hold at most ``chunk_records``.
    """

    def __init__(
        self,
        soma: BatchCalls,
        source: Source,
        *,
        settings: ImportSettings = ImportSettings(),
        state: Path | None = None,
        on_progress: Callable[[ImportProgress], None] | None = None,
        patience_s: float = PATIENCE_S,
        chunk_records: int = LIMITS.chunk_records,
    ) -> None:
        self.source = source
        self.import_id = ""
        self.progress = ImportProgress(size=source.size)
        self._soma = soma
        self._settings = settings
        self._path = state
        self._state: ImportState | None = None
        self._kept_at = 0.0
        self._on_progress = on_progress
        self._patience_s = patience_s
        self._chunk_records = chunk_records

    async def run(self) -> pb.ImportJob:
        """Import everything and return the finished job.

        Raises TooManyRefusedError when the job failed for that, ImportLeaseLostError when another process imports for
        the same job, UnavailableError and its like when the server stayed away for longer than ``patience_s``.
        """
        state = await self._begun()
        self._feed = SourceFeed(self.source, self._soma.namespace, state.mark, self._chunk_records)
        self._run = ImportRun(
            self._soma,
            self.import_id,
            self._feed,
            patience_s=self._patience_s,
            on_opened=self._note_opened,
            on_ack=self._note_ack,
        )
        try:
            job = await self._run.run()
        except SomaError as error:
            if error.reason in _OVER:
                self._forget_state()
            raise
        else:
            self._note_finished(job)
            self._forget_state()
            return job
        finally:
            self._keep(self._feed.committed, force=True)

    async def refused(self) -> AsyncIterator[RefusedItem]:
        """Every refused record of the job, in order, with what the source holds there; for after ``run``."""
        items = self.source.items()
        offset = -1
        item: Item | None = None
        async for refused in self._soma.import_errors(self.import_id):
            while offset < refused.offset and (item := next(items, None)) is not None:
                offset += 1
            if item is None:
                yield RefusedItem(refused.offset, "", item_error_from_pb(refused.error), None)
                continue
            error = item_error_from_pb(refused.error)
            try:
                read_item(self.source, item)
            except SomaError as unreadable:
                error = unreadable
            yield RefusedItem(refused.offset, item.place, error, item.value)

    # --- the job

    async def _begun(self) -> ImportState:
        """The state of the import: the one found, or that of a new job, which is written before the job is made."""
        options = asdict(self._settings)
        fingerprint = await asyncio.to_thread(self.source.fingerprint)
        state = read_state(self._path) if self._path is not None else None
        if state is None:
            state = ImportState(new_request_id(), fingerprint, options)
        else:
            state.check(fingerprint, options)
        self._state = state
        self._keep(state.mark, force=True)
        if not state.import_id:
            job = await self._soma.create_import(
                on_conflict=self._settings.on_conflict,
                max_refused=self._settings.max_refused,
                dry_run=self._settings.dry_run,
                label=self._settings.label,
                request_id=state.request_id,
            )
            state = replace(state, import_id=job.import_id)
        self._state, self.import_id = state, state.import_id
        self._keep(state.mark, force=True)
        return state

    def _keep(self, mark: Mark, *, force: bool = False) -> None:
        if self._path is None or self._state is None:
            return
        now = time.monotonic()
        if force or now - self._kept_at >= KEEP_EVERY_S:
            self._state, self._kept_at = self._state.at(mark), now
            write_state(self._path, self._state)

    def _forget_state(self) -> None:
        self._state = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    # --- telling

    def _note_opened(self, committed_offset: int) -> None:
        if not self.progress.committed and committed_offset:
            self.progress = replace(self.progress, committed=committed_offset, resumed_at=committed_offset)

    def _note_ack(self, ack: pb.ImportAck) -> None:
        self.progress = replace(
            self.progress,
            committed=ack.committed_offset,
            stored=ack.stored,
            refused=ack.refused_total,
            index_lag=ack.index_lag,
            reached=self.source.reached(self._feed.committed.at),
            reconnects=self._run.connections - 1,
        )
        self._keep(self._feed.committed)
        self._tell()

    def _note_finished(self, job: pb.ImportJob) -> None:
        self.progress = replace(
            self.progress,
            committed=job.committed_offset,
            stored=job.stored,
            refused=job.refused,
            reached=self.source.size,
            reconnects=self._run.connections - 1,
        )
        self._tell()

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.progress)
