"""A whole import or export in one call; the blocking client has both as methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from soma.batch.v1 import batch_service_pb2 as pb
from soma_client.client import SomaClient
from soma_client.exporter import Exported, Exporter, ExportSettings, Manifest
from soma_client.import_run import PATIENCE_S
from soma_client.importer import Importer, ImportProgress, ImportSettings
from soma_client.sources import Source


async def import_source(
    client: SomaClient,
    source: Source,
    *,
    settings: ImportSettings | None = None,
    state: Path | None = None,
    on_progress: Callable[[ImportProgress], None] | None = None,
    patience_s: float = PATIENCE_S,
) -> pb.ImportJob:
    """Import a source as :class:`soma_client.importer.Importer` does, and return the finished job."""
    asked = settings or ImportSettings()
    return await Importer(
        client, source, settings=asked, state=state, on_progress=on_progress, patience_s=patience_s
    ).run()


async def export_file(
    client: SomaClient,
    path: Path,
    format: str = "jsonl",
    *,
    settings: ExportSettings | None = None,
    resume: bool = False,
    on_progress: Callable[[Exported], None] | None = None,
) -> Manifest:
    """Export into a file as :class:`soma_client.exporter.Exporter` does, and return its manifest."""
    asked = settings or ExportSettings()
    return await Exporter(client, path, settings=asked, resume=resume, on_progress=on_progress).run(format)
