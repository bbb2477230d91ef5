"""What a collection looks like: its columns, its indexes, its name, and how a memory becomes a row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from memory_server.ports import Collection, IndexRow
from memory_server.stores.milvus.filters import ABSENT_TIME, micros, row_key, tag_digest
from memory_server.stores.milvus.messages import common_pb2, milvus_pb2, schema_pb2
from memory_server.stores.milvus.quoting import LABEL_BYTES, encoded
from soma_contract.limits import LIMITS
from soma_contract.text.analysis import DEFAULT_LANGUAGE, MAX_TERM_BYTES
from soma_contract.text.stop_words import stop_words

DENSE: Final = "dense"
SPARSE: Final = "sparse"
KEYWORD_BYTES: Final = 65_535
"""The longest text a VARCHAR takes; of a longer keyword text the index holds the beginning."""

_KEY_BYTES = 100
_TENANT_BYTES = 63
_LAYOUT = 1
"""Grows with every change of the columns: a collection of another layout is another collection."""

_Type = schema_pb2.DataType
_BASE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")


@dataclass(frozen=True, slots=True)
class Analysis:
    """How the index analyses keyword text and weighs terms; the twin is ``soma_contract.text.analysis``."""

    language: str = DEFAULT_LANGUAGE
    k1: float = 1.2
    b: float = 0.75

    def parameters(self) -> dict[str, Any]:
        """Return the analyzer's parameters as Milvus takes them."""
        filters: list[Any] = ["lowercase"]
        filters.append({"type": "length", "max": MAX_TERM_BYTES})
        words = sorted(stop_words(self.language))
        if words:
            filters.append({"type": "stop", "stop_words": words})
        filters.append({"type": "stemmer", "language": self.language})
        return {"tokenizer": "standard", "filter": filters}


@dataclass(frozen=True, slots=True)
class Column:
    """A scalar column: its Milvus type, the longest value, and its value for a row."""

    name: str
    type: int
    of: Callable[[IndexRow], Any]
    max_bytes: int = 0
    embedded_only: bool = False


def _label(attribute: str) -> Callable[[IndexRow], str]:
    return lambda row: encoded(getattr(row.memory, attribute))


def _time(attribute: str) -> Callable[[IndexRow], int]:
    def read(row: IndexRow) -> int:
        moment: datetime | None = getattr(row.memory, attribute)
        return ABSENT_TIME if moment is None else micros(moment)

    return read


def _number(attribute: str) -> Callable[[IndexRow], float]:
    return lambda row: float(getattr(row.memory, attribute) or 0.0)


def _present(attribute: str) -> Callable[[IndexRow], bool]:
    return lambda row: getattr(row.memory, attribute) is not None


COLUMNS: Final[tuple[Column, ...]] = (
    Column("pk", _Type.VarChar, lambda row: row_key(row.tenant.name, row.memory.memory_id), _KEY_BYTES),
    Column("tenant", _Type.VarChar, lambda row: row.tenant.name, _TENANT_BYTES),
    Column("namespace", _Type.VarChar, _label("namespace"), LABEL_BYTES),
    Column("version", _Type.Int64, lambda row: row.version),
    Column("kind", _Type.VarChar, lambda row: row.memory.kind.value, 16),
    Column("schema_type", _Type.VarChar, _label("schema_type"), LABEL_BYTES),
    Column("persona_id", _Type.VarChar, _label("persona_id"), LABEL_BYTES),
    Column("actor", _Type.VarChar, _label("actor"), LABEL_BYTES),
    Column("session_id", _Type.VarChar, _label("session_id"), LABEL_BYTES),
    Column("key", _Type.VarChar, _label("key"), LABEL_BYTES),
    Column("tags", _Type.Array, lambda row: [encoded(tag) for tag in row.memory.tags], LABEL_BYTES),
    # The embedded engine cannot negate array conditions, but answers `!=` on a JSON path that is not there.
    Column(
        "tag_digests",
        _Type.JSON,
        lambda row: json.dumps({tag_digest(tag): 1 for tag in row.memory.tags}).encode(),
        embedded_only=True,
    ),
    Column("occurred_at", _Type.Int64, _time("occurred_at")),
    Column("created_at", _Type.Int64, _time("created_at")),
    Column("updated_at", _Type.Int64, _time("updated_at")),
    Column("importance", _Type.Double, _number("importance")),
    Column("has_importance", _Type.Bool, _present("importance")),
    Column("relevance", _Type.Double, _number("relevance")),
    Column("has_relevance", _Type.Bool, _present("relevance")),
    Column("keyword", _Type.VarChar, lambda row: keyword_prefix(row.keyword_text), KEYWORD_BYTES),
)


def keyword_prefix(text: str) -> str:
    """Return as much of a text as the keyword column takes, cut between characters."""
    packed = text.encode("utf-8", "replace")
    return text if len(packed) <= KEYWORD_BYTES else packed[:KEYWORD_BYTES].decode("utf-8", "ignore")


@cache
def fingerprint(analysis: Analysis, dimension: int) -> str:
    """Return eight hex digits over everything that makes a collection unusable when it changes."""
    parts = (_LAYOUT, dimension, analysis.k1, analysis.b, analysis.parameters())
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=4).hexdigest()


def physical_name(collection: Collection, analysis: Analysis) -> str:
    """Return the name in the engine; it carries the epoch, so that a lost collection is never mistaken.

    A process that has not heard of a new epoch asks for a name that is gone, instead of searching a
    collection that is being filled.  Raises ValueError for a name that Milvus would refuse.
    """
    if not _BASE_NAME.fullmatch(collection.name):
        raise ValueError(f"{collection.name!r} cannot be a collection's name")
    return f"{collection.name}_e{collection.epoch}_{fingerprint(analysis, collection.dimension)}"


def epoch_of(physical: str, base: str) -> tuple[int, str] | None:
    """Return (epoch, fingerprint) of a physical name that belongs to the collection ``base``."""
    match = re.fullmatch(rf"{re.escape(base)}_e(\d+)_([0-9a-f]{{8}})", physical)
    return (int(match[1]), match[2]) if match else None


def creation(
    physical: str, dimension: int, analysis: Analysis, *, embedded: bool
) -> milvus_pb2.CreateCollectionRequest:
    """Return the request that creates a collection."""
    fields = [_field(column, embedded) for column in columns(embedded)]
    fields[-1].type_params.extend(
        [_pair("enable_analyzer", "true"), _pair("analyzer_params", json.dumps(analysis.parameters()))]
    )
    fields.append(
        schema_pb2.FieldSchema(name=DENSE, data_type=_Type.FloatVector, type_params=[_pair("dim", dimension)])
    )
    fields.append(schema_pb2.FieldSchema(name=SPARSE, data_type=_Type.SparseFloatVector, is_function_output=True))
    schema = schema_pb2.CollectionSchema(name=physical, fields=fields)
    schema.functions.add(
        name="bm25",
        type=schema_pb2.FunctionType.BM25,
        input_field_names=["keyword"],
        output_field_names=[SPARSE],
    )
    return milvus_pb2.CreateCollectionRequest(
        collection_name=physical,
        schema=schema.SerializeToString(),
        shards_num=1,
        consistency_level=common_pb2.ConsistencyLevel.Bounded,
    )


def index_creations(physical: str, analysis: Analysis, *, embedded: bool) -> list[milvus_pb2.CreateIndexRequest]:
    """Return the requests that create the two indexes: exact on the embedded engine, HNSW elsewhere."""
    dense = {"index_type": "FLAT", "metric_type": "IP"}
    if not embedded:
        dense = {"index_type": "HNSW", "metric_type": "IP", "params": '{"M": 16, "efConstruction": 200}'}
    sparse = {
        "index_type": "SPARSE_INVERTED_INDEX",
        "metric_type": "BM25",
        "params": json.dumps({"bm25_k1": analysis.k1, "bm25_b": analysis.b}),
    }
    return [
        milvus_pb2.CreateIndexRequest(
            collection_name=physical,
            field_name=name,
            index_name=name,
            extra_params=[_pair(key, value) for key, value in parameters.items()],
        )
        for name, parameters in ((DENSE, dense), (SPARSE, sparse))
    ]


def writing(
    physical: str, rows: Sequence[IndexRow], dimension: int, *, embedded: bool, replacing: bool
) -> milvus_pb2.UpsertRequest | milvus_pb2.InsertRequest:
    """Return the request that writes rows, ``replacing`` those that are there."""
    message = milvus_pb2.UpsertRequest if replacing else milvus_pb2.InsertRequest
    request = message(collection_name=physical, num_rows=len(rows))
    for column in columns(embedded):
        data = request.fields_data.add(field_name=column.name, type=column.type)
        _fill(data.scalars, column, [column.of(row) for row in rows])
    dense = request.fields_data.add(field_name=DENSE, type=_Type.FloatVector)
    dense.vectors.dim = dimension
    dense.vectors.float_vector.data.extend(np.concatenate([row.dense for row in rows]).tolist())
    return request


def columns(embedded: bool) -> list[Column]:
    """Return the scalar columns of an engine; the keyword text is the last."""
    return [column for column in COLUMNS if embedded or not column.embedded_only]


def _field(column: Column, embedded: bool) -> schema_pb2.FieldSchema:
    field = schema_pb2.FieldSchema(
        name=column.name,
        data_type=column.type,
        is_primary_key=column.name == "pk",
        is_partition_key=column.name == "tenant" and not embedded,
    )
    if column.type == _Type.Array:
        field.element_type = _Type.VarChar
        field.type_params.append(_pair("max_capacity", LIMITS.tags))
    if column.max_bytes:
        field.type_params.append(_pair("max_length", column.max_bytes))
    return field


def _fill(scalars: Any, column: Column, values: list[Any]) -> None:
    if column.type == _Type.VarChar:
        scalars.string_data.data.extend(values)
    elif column.type == _Type.Int64:
        scalars.long_data.data.extend(values)
    elif column.type == _Type.Double:
        scalars.double_data.data.extend(values)
    elif column.type == _Type.Bool:
        scalars.bool_data.data.extend(values)
    elif column.type == _Type.JSON:
        scalars.json_data.data.extend(values)
    else:
        scalars.array_data.element_type = _Type.VarChar
        for value in values:
            scalars.array_data.data.add().string_data.data.extend(value)


def _pair(key: str, value: object) -> common_pb2.KeyValuePair:
    return common_pb2.KeyValuePair(key=key, value=str(value))
