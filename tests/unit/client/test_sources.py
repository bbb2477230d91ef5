"""Sources: what they find, that any mark leads to the same rest, and how columns become fields."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from google.protobuf.json_format import ParseDict

from soma.batch.v1 import batch_service_pb2 as pb
from soma.common.v1 import types_pb2 as common
from soma.graph.v1 import graph_service_pb2
from soma.memory.v1 import memory_pb2
from soma_client.export_tables import write_parquet
from soma_client.mapping import FieldMapping
from soma_client.record_json import line_of, object_of, record_of, record_of_line
from soma_client.sources import Files, JsonLines, Source, original
from soma_client.tables import Csv, MappedLines, Parquet
from soma_contract.errors import FieldViolationError


def a_memory() -> pb.Record:
    """A record with every field."""
    memory = memory_pb2.Memory(
        memory_id="0190b6a0-7c1e-7000-8000-000000000000",
        namespace="lab",
        key="k",
        coordinate=common.Coordinate(values=[0.1, -0.2, 0.3]),
        kind=memory_pb2.KIND_PROCEDURAL,
        schema_type="T",
        schema_version="2",
        persona_id="p",
        text="Ü\u2603 \U0001f600",
        payload_json='{"a": 1.50}',
        tags=["x", "y"],
        actor="Ada",
        session_id="s",
        sequence=2**60,
        provenance=common.Provenance(author="Grace", confidence=0.0),
        importance=-0.1,
        relevance=0.0,
        version=7,
        embedding=common.Vector(packed_f32=b"\x00\x00\x80?\x00\x00\x00@"),
        embedding_model="mine",
    )
    memory.occurred_time.FromJsonString("2019-05-06T07:08:09.000010Z")
    memory.create_time.FromJsonString("2020-05-06T07:08:09Z")
    memory.update_time.FromJsonString("2021-05-06T07:08:09.100Z")
    memory.expire_time.FromJsonString("2199-05-06T07:08:09.000012Z")
    return pb.Record(memory=memory)


def a_link() -> pb.Record:
    """A record of a link with every field."""
    link = graph_service_pb2.MemoryLink(
        source_id="a", target_id="b", relation="related", strength=0.25, metadata_json="{}", version=3
    )
    for time in (link.valid_from_time, link.valid_until_time, link.create_time, link.update_time):
        time.FromJsonString("2020-05-06T07:08:09.000001Z")
    return pb.Record(link=link)


@pytest.mark.parametrize("record", [a_memory(), a_link(), pb.Record(memory=memory_pb2.Memory(text="x"))])
def test_a_record_is_the_same_after_json_and_after_parquet(record: pb.Record, tmp_path: Path) -> None:
    assert record == record_of_line(line_of(record))
    (tmp_path / "a.jsonl").write_bytes(line_of(record))
    write_parquet(tmp_path / "a.jsonl", tmp_path / "a.parquet")
    source = Files([tmp_path / "a.parquet"], Parquet())
    assert [record] == [source.record(item.value) for item in source.items()]


def test_what_is_written_is_json_of_the_contract() -> None:
    for record in (a_memory(), a_link()):
        written = object_of(record)
        if "link" in written:
            assert record.link == ParseDict(written["link"], graph_service_pb2.MemoryLink())
        else:
            assert record.memory == ParseDict(written, memory_pb2.Memory())


@pytest.mark.parametrize(
    "found",
    [
        {"memoryId": "x", "text": "camel case"},
        {"text": "numbers of a vector", "embedding": {"values": {"values": [0.5, 1]}}},
        {"text": "nanoseconds", "occurred_time": "2020-01-01T00:00:00.123456789Z"},
        {"text": "integers as text", "version": "12", "sequence": "9007199254740993"},
        {"text": "whole numbers", "importance": 3, "kind": 2},
    ],
)
def test_what_the_contracts_json_allows_is_read_as_protobuf_reads_it(found: dict[str, object]) -> None:
    assert ParseDict(dict(found), memory_pb2.Memory()) == record_of(found).memory


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"1",
        b'{"txt": "x"}',
        b'{"text": 1}',
        b'{"text": "x", "tags": "y"}',
        b'{"text": "x", "version": "a"}',
        b"{",
    ],
)
def test_a_line_that_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(FieldViolationError):
        record_of_line(line)


def sources(path: Path) -> dict[str, Source]:
    """One source of each format, of the same nine memories in two files."""
    made: dict[str, Source] = {}
    texts = [f"note {n}, \nwith a break" for n in range(9)]
    parts = (texts[:4], texts[4:])
    for number, part in enumerate(parts):
        (path / f"{number}.jsonl").write_bytes(
            b"\n".join(line_of(pb.Record(memory=memory_pb2.Memory(text=text))) for text in part)
        )
        quoted = "".join(f'"{text}",x\r\n' for text in part)
        (path / f"{number}.csv").write_text("\ufefftext,actor\r\n" + quoted, newline="")
        table = pa.table({"text": part, "actor": ["x"] * len(part)})
        pa.parquet.write_table(table, path / f"{number}.parquet", row_group_size=3)
    for name, format in (("jsonl", JsonLines()), ("csv", Csv()), ("parquet", Parquet())):
        made[name] = Files([path / f"0.{name}", path / f"1.{name}"], format)
    return made


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_any_mark_leads_to_the_same_rest(name: str, tmp_path: Path) -> None:
    source = sources(tmp_path)[name]
    whole = list(source.items())
    texts = [source.record(item.value).memory.text for item in whole]
    assert [f"note {n}, \nwith a break" for n in range(9)] == texts
    for number, item in enumerate(whole, 1):
        rest = [source.record(each.value).memory.text for each in source.items(item.after)]
        assert texts[number:] == rest
    assert source.size == source.reached(whole[-1].after)


def test_a_changed_file_or_mapping_has_another_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\none\n")
    before = Files([tmp_path / "a.csv"], Csv()).fingerprint()
    assert before != Files([tmp_path / "a.csv"], Csv(FieldMapping(constants={"kind": "semantic"}))).fingerprint()
    (tmp_path / "a.csv").write_text("text\ntwo\n")
    assert before != Files([tmp_path / "a.csv"], Csv()).fingerprint()


def test_rows_that_cannot_be_read_are_refused_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,actor\nfine,x\nshort\nbad \xff,x\nlast,x\n")
    source = Files([tmp_path / "a.csv"], Csv())
    told: list[object] = []
    for item in source.items():
        try:
            told.append(source.record(item.value).memory.text)
        except FieldViolationError as error:
            told.append((item.place, error.violations[0].description, original(item.value)))
    assert [
        "fine",
        ("a.csv:3", "has 1 cells, the first row names 2 columns", ["short"]),
        ("a.csv:4", "is not UTF-8", ["bad \N{REPLACEMENT CHARACTER}", "x"]),
        "last",
    ] == told


def mapped(row: dict[str, object], **mapping: object) -> memory_pb2.Memory:
    """A row under a mapping."""
    return FieldMapping(**mapping).record(row).memory  # type: ignore[arg-type]


def test_columns_are_mapped_set_and_kept() -> None:
    found = mapped(
        {"body": {"en": "hello"}, "score": "0.5", "extra": 1, "tags": '["a", "b"]', "none": None},
        columns={"text": "body.en", "relevance": "score"},
        constants={"actor": "Ada"},
    )
    assert ("hello", 0.5, "Ada", ["a", "b"], '{"extra":1}') == (
        found.text,
        found.relevance,
        found.actor,
        list(found.tags),
        found.payload_json,
    )
    assert "" == mapped({"text": "x", "extra": 1}, rest="ignore").payload_json


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-05-06T07:08:09+02:00", "2024-05-06T05:08:09Z"),
        ("2024-05-06 07:08:09", "2024-05-06T07:08:09Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        ("1700000000.5", "2023-11-14T22:13:20.500Z"),
        (1_700_000_000_500, "2023-11-14T22:13:20.500Z"),
        (datetime(2024, 5, 6, tzinfo=UTC), "2024-05-06T00:00:00Z"),
    ],
)
def test_times_are_read_as_people_write_them(value: object, expected: str) -> None:
    assert expected == mapped({"text": "x", "occurred_time": value}).occurred_time.ToJsonString()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("occurred_time", "yesterday"),
        ("relevance", "much"),
        ("sequence", "1.5"),
        ("kind", "vague"),
        ("embedding", "[1, 2"),
        ("coordinate", "abc"),
        ("provenance", "[]"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_path(field: str, value: str) -> None:
    with pytest.raises(FieldViolationError) as refused:
        mapped({"text": "x", field: value})
    assert [f"memory.{field}"] == [violation.field for violation in refused.value.violations]


def test_an_unknown_field_of_a_mapping_is_refused_at_once() -> None:
    with pytest.raises(FieldViolationError, match="'txt' is no field"):
        FieldMapping(columns={"txt": "a"})


def test_mapped_lines_take_any_object(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "hello", "n": 1}\n')
    source = Files([tmp_path / "a.jsonl"], MappedLines(FieldMapping(columns={"text": "content"})))
    found = [source.record(item.value).memory for item in source.items()]
    assert [("hello", '{"n":1}')] == [(one.text, one.payload_json) for one in found]
