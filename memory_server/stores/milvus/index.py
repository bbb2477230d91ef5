"""The vector index on Milvus: embedded engine, one server or a cluster, by address alone."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from memory_server.ports import Collection, CollectionLostError, IndexHit, IndexRow, IndexSearch, RowsRefusedError
from memory_server.stores.milvus import schema
from memory_server.stores.milvus.filters import compile_filter, row_key
from memory_server.stores.milvus.legs import LEG_NAMES, hits, queries, search_request
from memory_server.stores.milvus.loading import LoadedCollections
from memory_server.stores.milvus.messages import common_pb2, milvus_pb2
from memory_server.stores.milvus.quoting import quoted, quoted_list
from memory_server.stores.milvus.wire import (
    COMPONENT,
    LateError,
    MilvusAddress,
    MilvusWire,
    RefusedError,
)
from memory_server.stores.rows import accepted_rows
from rpckit.failpoints import failpoint
from soma_contract.errors import ComponentUnavailableError
from soma_contract.filters import Filter
from soma_contract.tenant import Tenant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger("soma.index")

MAX_LIMIT = 16_384
"""The most rows one search or query of Milvus returns."""

_REMOVE_ROWS = 1_000
_PROBE_NAME = "soma_probe"


@dataclass(frozen=True, slots=True)
class MilvusLimits:
    """Bounds of the index's work."""

    loaded_collections: int = 32
    """Collections kept in the engine's memory by this process; each costs it about 50 MB."""
    batch_rows: int = 128
    """Rows written by one request; searches of the embedded engine wait while it writes."""
    batch_bytes: int = 8 * 1024 * 1024
    """Keyword text and vectors written by one request."""
    write_timeout_s: float = 30.0
    """Patience with one write, creation or drop."""
    probe_timeout_s: float = 1.0


class MilvusIndex:
    """The VectorIndex port on Milvus; an async context manager that owns its channel."""

    def __init__(
        self,
        address: MilvusAddress,
        *,
        analysis: schema.Analysis | None = None,
        limits: MilvusLimits | None = None,
        strong: bool = False,
    ) -> None:
        """``strong`` makes a search see every write before it, at the price of a server's time tick (200 ms).

        Recall does without: Postgres searches what was indexed in the last seconds.
        """
        self._wire = MilvusWire(address)
        self._analysis = analysis or schema.Analysis()
        self._limits = limits or MilvusLimits()
        self._strong = strong
        self._writers: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._loaded = LoadedCollections(self._wire, self._limits.loaded_collections)

    async def __aenter__(self) -> Self:
        await self._wire.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._wire.__aexit__(kind, error, trace)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Collections that this process has had loaded, the longest unused first, by their names in the engine."""
        return self._loaded.names

    # --- collections ---

    async def ensure(self, collection: Collection) -> bool:
        """Make the collection exist and be loaded; True when what this epoch had indexed is gone."""
        name = schema.physical_name(collection, self._analysis)
        mark = schema.fingerprint(self._analysis, collection.dimension)
        async with self._writers[collection.name]:
            there = await self._epochs(collection.name)
            if (collection.epoch, mark) in there:
                await self._make_ready(name)
                for epoch, other in there:
                    if epoch < collection.epoch:
                        await self._drop(f"{collection.name}_e{epoch}_{other}")
                return False
            if not any(epoch > collection.epoch and other == mark for epoch, other in there):
                await self._create(f"{collection.name}_e{collection.epoch + 1}_{mark}", collection.dimension)
            return True

    async def drop(self, collection_name: str) -> None:
        """Delete a collection with all its epochs."""
        async with self._writers[collection_name]:
            for epoch, mark in await self._epochs(collection_name):
                await self._drop(f"{collection_name}_e{epoch}_{mark}")
        self._writers.pop(collection_name, None)

    async def probe(self) -> None:
        """Answer, or raise ComponentUnavailableError."""
        request = milvus_pb2.HasCollectionRequest(collection_name=_PROBE_NAME)
        await self._wire.call("HasCollection", request, timeout_s=self._limits.probe_timeout_s)

    # --- rows ---

    async def upsert(self, collection: Collection, rows: Sequence[IndexRow]) -> None:
        """Write rows; of several with one key the highest version counts."""
        accepted = accepted_rows(rows, collection.dimension)
        name = schema.physical_name(collection, self._analysis)
        embedded = await self._embedded()
        async with self._writers[collection.name]:
            for batch in self._batches(accepted):
                # Replacing costs the embedded engine a pass over the whole collection, inserting does not.
                held = await self._held(name, batch) if embedded else None
                for replacing in (True, False):
                    rows = [row for row in batch if (held is None or _key(row) in held) is replacing]
                    if rows:
                        await self._write_rows(name, rows, collection.dimension, embedded, replacing)
                # A large request is built and sent in one go; let others have the loop in between.
                await asyncio.sleep(0)

    async def remove(self, collection: Collection, keys: Sequence[tuple[Tenant, str]]) -> None:
        """Delete rows by (tenant, id); absent ones are fine."""
        name = schema.physical_name(collection, self._analysis)
        unique = list(dict.fromkeys(row_key(tenant.name, memory_id) for tenant, memory_id in keys))
        async with self._writers[collection.name]:
            for start in range(0, len(unique), _REMOVE_ROWS):
                expression = f"pk in {quoted_list(unique[start : start + _REMOVE_ROWS])}"
                await self._write("Delete", milvus_pb2.DeleteRequest(collection_name=name, expr=expression))

    async def versions(self, collection: Collection, *, after_key: str, limit: int) -> list[tuple[str, str, int]]:
        """Read (tenant name, memory id, version) of all rows in key order."""
        name = schema.physical_name(collection, self._analysis)
        request = milvus_pb2.QueryRequest(
            collection_name=name,
            expr=f"pk > {quoted(after_key)}",
            output_fields=["pk", "version"],
            consistency_level=common_pb2.ConsistencyLevel.Strong,
        )
        # As the engine's own iterators ask, which page by key as well: without it segments may be cut short.
        for key, value in (("limit", min(limit, MAX_LIMIT)), ("iterator", "True"), ("reduce_stop_for_best", "True")):
            request.query_params.add(key=key, value=str(value))
        answer = await self._loaded.call(name, "Query", request, self._limits.write_timeout_s)
        fields = {field.field_name: field.scalars for field in answer.fields_data}
        if not fields:
            return []
        pairs = sorted(zip(fields["pk"].string_data.data, fields["version"].long_data.data, strict=True))
        return [(*_split(key), version) for key, version in pairs]

    async def count(self, collection: Collection) -> int:
        """Count the rows of a collection."""
        name = schema.physical_name(collection, self._analysis)
        request = milvus_pb2.QueryRequest(
            collection_name=name, output_fields=["count(*)"], consistency_level=common_pb2.ConsistencyLevel.Strong
        )
        answer = await self._loaded.call(name, "Query", request, self._limits.write_timeout_s)
        return int(answer.fields_data[0].scalars.long_data.data[0])

    # --- search ---

    async def search(
        self,
        tenant: Tenant,
        collection: Collection,
        filter: Filter,
        *,
        dense: NDArray[np.float32] | None,
        keyword_text: str | None,
        ids: Sequence[str] | None = None,
        limit: int,
        deadline_s: float,
    ) -> IndexSearch:
        """Search both legs in parallel, pre-filtered by tenant and filter (payload conditions aside)."""
        ends_at = asyncio.get_running_loop().time() + deadline_s
        embedded = await self._embedded(deadline_s)
        expression = compile_filter(tenant, filter, ids=None if ids is None else list(ids), embedded=embedded)
        wanted = queries(dense, keyword_text)
        answers: dict[str, tuple[IndexHit, ...]] = {}
        failures: dict[str, Exception] = {}
        if expression.text is None or limit <= 0:
            answers = dict.fromkeys(wanted, ())
            wanted = {}
        name = schema.physical_name(collection, self._analysis)

        async def run(column: str, request: Any) -> None:
            try:
                answer = await self._loaded.search(name, request, ends_at)
                answers[column] = hits(answer, tenant)
            except (ComponentUnavailableError, CollectionLostError, RefusedError) as error:
                failures[column] = error

        async with asyncio.TaskGroup() as legs:
            for column, query in wanted.items():
                request = search_request(
                    name,
                    column,
                    query,
                    expression.text or "",
                    min(limit, MAX_LIMIT),
                    embedded=embedded,
                    strong=self._strong,
                )
                legs.create_task(run(column, request))
        for error in failures.values():
            if isinstance(error, CollectionLostError):
                raise error
        reasons = {LEG_NAMES[column]: _reason(error) for column, error in failures.items()}
        if failures and not answers:
            raise ComponentUnavailableError(f"The vector index gave no answer: {reasons}.", component=COMPONENT)
        return IndexSearch(answers.get(schema.DENSE), answers.get(schema.SPARSE), reasons, expression.exact)

    # --- the engine ---

    async def _embedded(self, timeout_s: float | None = None) -> bool:
        return await self._wire.is_embedded(timeout_s=timeout_s or self._limits.probe_timeout_s)

    async def _write(self, method: str, request: Any) -> Any:
        return await self._wire.call(method, request, timeout_s=self._limits.write_timeout_s)

    async def _make_ready(self, name: str) -> None:
        """Create what a crash may have left out, and load."""
        if name in self._loaded:
            return
        for request in schema.index_creations(name, self._analysis, embedded=await self._embedded()):
            await self._write("CreateIndex", request)
        await self._loaded.touch(name, self._limits.write_timeout_s)

    async def _create(self, name: str, dimension: int) -> None:
        embedded = await self._embedded()
        await self._write("CreateCollection", schema.creation(name, dimension, self._analysis, embedded=embedded))
        failpoint("milvus.created")
        await self._make_ready(name)

    async def _drop(self, name: str) -> None:
        self._loaded.forget(name)
        await self._write("DropCollection", milvus_pb2.DropCollectionRequest(collection_name=name))
        failpoint("milvus.dropped")

    async def _epochs(self, base: str) -> list[tuple[int, str]]:
        answer = await self._write("ShowCollections", milvus_pb2.ShowCollectionsRequest())
        found = (schema.epoch_of(name, base) for name in answer.collection_names)
        return sorted(epoch for epoch in found if epoch is not None)

    async def _held(self, name: str, rows: Sequence[IndexRow]) -> set[str]:
        """Which of the rows' keys are in the collection."""
        request = milvus_pb2.QueryRequest(
            collection_name=name, expr=f"pk in {quoted_list([_key(row) for row in rows])}", output_fields=["pk"]
        )
        answer = await self._write("Query", request)
        return {key for field in answer.fields_data for key in field.scalars.string_data.data}

    async def _write_rows(
        self, name: str, rows: Sequence[IndexRow], dimension: int, embedded: bool, replacing: bool
    ) -> None:
        request = schema.writing(name, rows, dimension, embedded=embedded, replacing=replacing)
        try:
            await self._write("Upsert" if replacing else "Insert", request)
            failpoint("milvus.replaced" if replacing else "milvus.inserted")
        except RefusedError as error:
            reasons = {(row.tenant.name, row.memory.memory_id): str(error) for row in rows}
            raise RowsRefusedError(reasons) from error

    def _batches(self, rows: Sequence[IndexRow]) -> Iterator[list[IndexRow]]:
        batch: list[IndexRow] = []
        size = 0
        for row in rows:
            row_bytes = len(row.keyword_text) + row.dense.nbytes
            if batch and (len(batch) >= self._limits.batch_rows or size + row_bytes > self._limits.batch_bytes):
                yield batch
                batch, size = [], 0
            batch.append(row)
            size += row_bytes
        if batch:
            yield batch


def _reason(error: Exception) -> str:
    if isinstance(error, RefusedError):
        # Nothing a caller sends should lead here: the compiler or the schema is wrong.
        _log.error("a search was refused by the index, code %d", error.code)
        return "refused"
    return "late" if isinstance(error, LateError) else "unavailable"


def _key(row: IndexRow) -> str:
    return row_key(row.tenant.name, row.memory.memory_id)


def _split(key: str) -> tuple[str, str]:
    tenant_name, _, memory_id = key.partition("|")
    return tenant_name, memory_id
