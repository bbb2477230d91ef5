"""What the import is held against: the same rows written by hand, into Postgres, into the index, into the embedder."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import numpy as np
from pymilvus import AsyncMilvusClient

from bench.corpus import sentences
from bench.embedder import sentences as about_thirty_tokens
from soma.batch.v1 import batch_service_pb2 as pb
from soma.common.v1 import types_pb2 as common
from soma.memory.v1 import memory_pb2
from soma_contract.embedders import Priority
from soma_contract.embedders.factory import build_embedder
from soma_contract.ids import foreign_memory_id
from soma_embedded import EmbeddedStack

CHUNK = 1_000
DIMENSION = 384
_COLUMNS = [
    "tenant",
    "memory_id",
    "namespace",
    "coordinate",
    "kind",
    "text",
    "actor",
    "embedding",
    "embedding_model",
    "created_at",
    "updated_at",
    "version",
    "content_hash",
    "place_key",
]
_STAGED = """
WITH inserted AS (
    INSERT INTO memory_items ({columns}) SELECT {columns} FROM staged RETURNING memory_id
), queued AS (
    INSERT INTO index_jobs (tenant, memory_id, version, due_at, queued_at, moved_at)
    SELECT tenant, memory_id, version, now(), now(), now() FROM staged
), bumped AS (
    INSERT INTO tenant_revisions AS t (tenant, revision) VALUES ($1, 1)
    ON CONFLICT (tenant) DO UPDATE SET revision = t.revision + 1 RETURNING revision
)
INSERT INTO changelog (tenant, revision, ordinal, op, memory_id, namespace, version, relation, at)
SELECT s.tenant, b.revision, row_number() OVER (), 'put', s.memory_id, s.namespace, s.version, '', now()
FROM staged s CROSS JOIN bumped b
"""


def records(count: int, name: str, *, vectors: bool = True) -> Iterator[pb.Record]:
    """Small memories, with vectors of length one or sentences of about thirty tokens to embed."""
    texts = (text for _, text in sentences(count)) if vectors else iter(about_thirty_tokens(count))
    chance = np.random.default_rng(7)
    for number, text in enumerate(texts):
        wire = memory_pb2.Memory(memory_id=foreign_memory_id(name, str(number)), text=text, actor="Mara")
        if vectors:
            vector = chance.normal(size=DIMENSION).astype("<f4")
            wire.embedding.CopyFrom(common.Vector(packed_f32=(vector / np.linalg.norm(vector)).tobytes()))
        yield pb.Record(memory=wire)


def rows(tenant: str, wires: Sequence[pb.Record]) -> list[tuple[object, ...]]:
    """The same as rows of memory_items, all that can be known before a transaction begins."""
    now = datetime.now(UTC)
    return [
        (
            tenant,
            uuid.UUID(wire.memory.memory_id),
            "default",
            [0.1, 0.2, 0.3],
            "episodic",
            wire.memory.text,
            wire.memory.actor,
            wire.memory.embedding.packed_f32,
            "bench",
            now,
            now,
            1,
            b"0123456789abcdef",
            number,
        )
        for number, wire in enumerate(wires)
    ]


async def copy_rate(stack: EmbeddedStack, wires: Sequence[pb.Record]) -> float:
    """Rows a second by COPY into a table without index, key or check; a transaction every 1,000."""
    async with _connected(stack.stores.postgres_admin_url) as connection:
        columns = ", ".join(_COLUMNS)
        await connection.execute(f"CREATE TABLE bare AS SELECT {columns} FROM memory_items WITH NO DATA")
        made = rows("bare", wires)
        began = time.perf_counter()
        for start in range(0, len(made), CHUNK):
            await connection.copy_records_to_table("bare", records=made[start : start + CHUNK], columns=_COLUMNS)
        took = time.perf_counter() - began
        await connection.execute("DROP TABLE bare")
        return len(made) / took


async def staged_rate(stack: EmbeddedStack, wires: Sequence[pb.Record], tenant: str) -> float:
    """Rows a second as one would write them by hand, under row-level security: COPY, INSERT, changelog, job.

    The rows are removed again, so that nobody indexes them.
    """
    made = rows(tenant, wires)
    async with _connected(stack.stores.postgres_url) as connection:
        await connection.execute("CREATE TEMP TABLE staged (LIKE memory_items) ON COMMIT DELETE ROWS")
        for nullable in ("schema_type", "schema_version", "persona_id", "payload", "tags", "session_id", "author"):
            await connection.execute(f"ALTER TABLE staged ALTER COLUMN {nullable} DROP NOT NULL")
        for nullable in ("key", "source", "deleted", "origin_brain", "term_keys", "term_counts", "length", "text_key"):
            await connection.execute(f"ALTER TABLE staged ALTER COLUMN {nullable} DROP NOT NULL")
        write = await _prepared(connection, tenant)
        began = time.perf_counter()
        for start in range(0, len(made), CHUNK):
            async with connection.transaction():
                await connection.execute("SELECT set_config('app.tenant', $1, true)", tenant)
                part = made[start : start + CHUNK]
                await connection.copy_records_to_table("staged", records=part, columns=_COLUMNS)
                await write.fetch(tenant)
        took = time.perf_counter() - began
    async with _connected(stack.stores.postgres_admin_url) as owner:
        for table in ("index_jobs", "changelog", "memory_items", "tenant_revisions"):
            await owner.execute(f"DELETE FROM {table} WHERE tenant = $1", tenant)
        await owner.execute("VACUUM ANALYZE memory_items")
    return len(made) / took


async def _prepared(connection: asyncpg.Connection, tenant: str) -> Any:
    async with connection.transaction():
        await connection.execute("SELECT set_config('app.tenant', $1, true)", tenant)
        return await connection.prepare(_STAGED.format(columns=", ".join(_COLUMNS)))


async def index_rate(stack: EmbeddedStack, wires: Sequence[pb.Record], like: str) -> float:
    """Rows a second into a collection with the columns and indexes of ours, in requests of 1,000."""
    index = AsyncMilvusClient(uri=stack.stores.milvus_uri)
    try:
        name = next(each for each in await index.list_collections() if each.startswith(like))
        found = (await index.query(name, filter="", limit=1, output_fields=["*"]))[0]
        sample = {field: value for field, value in dict(found).items() if field != "sparse"}
        pks = [f"bench|{uuid.uuid4()}" for _ in wires]
        dense = [np.frombuffer(wire.memory.embedding.packed_f32, "<f4").tolist() for wire in wires]
        made = [
            {**sample, "pk": pk, "tenant": "bench", "keyword": wire.memory.text, "dense": vector}
            for pk, wire, vector in zip(pks, wires, dense, strict=True)
        ]
        began = time.perf_counter()
        for start in range(0, len(made), CHUNK):
            await index.insert(name, made[start : start + CHUNK])
        took = time.perf_counter() - began
        for start in range(0, len(pks), CHUNK):
            await index.delete(name, filter=f"pk in {json.dumps(pks[start : start + CHUNK])}")
        return len(made) / took
    finally:
        await index.close()


async def embedder_rate(count: int) -> float:
    """Sentences a second of the embedder alone, in this process."""
    texts = about_thirty_tokens(count)
    async with build_embedder("local") as embedder:
        await embedder.embed(texts[:64], priority=Priority.BULK)
        began = time.perf_counter()
        for start in range(0, count, 256):
            await embedder.embed(texts[start : start + 256], priority=Priority.BULK)
        return count / (time.perf_counter() - began)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
