"""Exports as Parquet: one row a record, the column ``record`` says of which sort."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from soma.batch.v1 import batch_service_pb2 as pb
from soma.graph.v1 import graph_service_pb2 as graph_pb
from soma.memory.v1 import memory_pb2
from soma_client.record_json import record_of_line
from soma_client.tables import need_parquet

if TYPE_CHECKING:
    import pyarrow

_ROWS = 2_000


def write_parquet(lines: Path, path: Path) -> None:
    """Turn an export in JSON lines into Parquet, row group by row group; raises UnimplementedError without pyarrow."""
    parquet = need_parquet()
    import pyarrow as pa

    schema = _schema()
    fresh = path.with_name(f"{path.name}.new")
    with lines.open("rb") as file, parquet.ParquetWriter(fresh, schema, compression="zstd") as writer:
        rows = (row_of_record(record_of_line(line)) for line in file)
        while group := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    fresh.replace(path)


def row_of_record(record: pb.Record) -> dict[str, Any]:
    """A record as a row; what is empty is null."""
    if record.HasField("link"):
        return {"record": "link", **dict(_values(record.link))}
    return {"record": "memory", **dict(_values(record.memory))}


def _values(message: memory_pb2.Memory | graph_pb.MemoryLink) -> Iterator[tuple[str, Any]]:
    for field, value in message.ListFields():
        match value:
            case Timestamp():
                yield field.name, datetime.fromtimestamp(value.seconds, UTC).replace(microsecond=value.nanos // 1_000)
            case _ if field.name == "kind":
                yield field.name, memory_pb2.Kind.Name(value).removeprefix("KIND_").lower()
            case _ if field.name == "embedding":
                yield field.name, _components(value)
            case _ if field.name == "coordinate":
                yield field.name, list(value.values)
            case _ if field.name == "provenance":
                confidence = value.confidence if value.HasField("confidence") else None
                yield field.name, {"author": value.author, "source": value.source, "confidence": confidence}
            case _ if field.name == "tags":
                yield field.name, list(value)
            case _:
                yield field.name, value


def _components(vector: Any) -> Any:
    import numpy as np

    if vector.WhichOneof("encoding") == "packed_f32":
        return np.frombuffer(vector.packed_f32, "<f4")
    return list(vector.values.values)


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    text, time = pa.string(), pa.timestamp("us", tz="UTC")
    provenance = pa.struct([("author", text), ("source", text), ("confidence", pa.float64())])
    special = {
        "coordinate": pa.list_(pa.float64()),
        "tags": pa.list_(text),
        "sequence": pa.int64(),
        "version": pa.int64(),
        "provenance": provenance,
        "importance": pa.float64(),
        "relevance": pa.float64(),
        "strength": pa.float64(),
        "embedding": pa.list_(pa.float32()),
    }
    names = [field.name for field in memory_pb2.Memory.DESCRIPTOR.fields]
    names += [field.name for field in graph_pb.MemoryLink.DESCRIPTOR.fields if field.name not in names]
    fields = [(name, special.get(name, time if name.endswith("_time") else text)) for name in names]
    return pa.schema([("record", text), *fields])
