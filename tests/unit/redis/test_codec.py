"""A memory survives the cache's codec to the last bit; anything else is a miss."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_server.stores.redis.codec import decode_memory, encode_memory
from soma_contract.memory import Kind, Memory, Provenance, Vector

texts = st.text(max_size=8) | st.sampled_from(["\ud800", "\ud800\udc00", "\x00", "\u2028", '"\\', "\x7f"])
numbers = st.none() | st.floats(allow_nan=False)
moments = st.none() | st.datetimes(
    # Naive, as the strategy wants its bounds.
    min_value=datetime(1, 1, 2),  # noqa: DTZ001
    max_value=datetime(9998, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
).map(lambda moment: moment.replace(fold=0))
axes = st.floats(-1, 1)
memories = st.builds(
    Memory,
    memory_id=texts,
    namespace=texts,
    key=texts,
    coordinate=st.none() | st.tuples(axes, axes, axes),
    kind=st.sampled_from(Kind),
    schema_type=texts,
    schema_version=texts,
    persona_id=texts,
    text=texts,
    payload_json=texts,
    tags=st.lists(texts, max_size=5).map(tuple),
    actor=texts,
    session_id=texts,
    sequence=st.none() | st.integers(-(2**63), 2**63 - 1),
    provenance=st.builds(Provenance, texts, texts, numbers),
    importance=numbers,
    relevance=numbers,
    occurred_at=moments,
    expires_at=moments,
    embedding=st.none() | st.builds(Vector, st.binary(max_size=64)),
    embedding_model=texts,
    created_at=moments,
    updated_at=moments,
    version=st.integers(0, 2**63 - 1),
)


@given(memories)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_memory_reads_back_to_the_letter(memory: Memory) -> None:
    read = decode_memory(encode_memory(memory))
    assert read == memory
    # Zero has a sign and an int is not a float, which equality does not see.
    assert repr(read) == repr(memory)


def test_every_field_of_a_memory_takes_part() -> None:
    names = {field.name for field in dataclasses.fields(Memory)}
    plain = Memory()
    other = Memory(
        memory_id="x", namespace="x", key="x", coordinate=(1.0, 0.0, 0.0), kind=Kind.SEMANTIC, schema_type="x",
        schema_version="x", persona_id="x", text="x", payload_json="x", tags=("x",), actor="x", session_id="x",
        sequence=0, provenance=Provenance("x"), importance=0.0, relevance=0.0, occurred_at=datetime.now(UTC),
        expires_at=datetime.now(UTC), embedding=Vector(b"1234"), embedding_model="x",
        created_at=datetime.now(UTC), updated_at=datetime.now(UTC), version=7,
    )  # fmt: skip
    assert all(getattr(plain, name) != getattr(other, name) for name in names)
    assert decode_memory(encode_memory(other)) == other


@given(st.binary())
def test_foreign_bytes_are_a_miss(packed: bytes) -> None:
    assert decode_memory(packed) is None


@pytest.mark.parametrize("packed", [b"[]", b"[2]", b"{}", b"null", b"[1, 2]", b'"x"', b"1", b"\xff"])
def test_json_that_is_no_memory_is_a_miss(packed: bytes) -> None:
    assert decode_memory(packed) is None


def test_another_format_is_a_miss() -> None:
    fields = json.loads(encode_memory(Memory(created_at=datetime.now(UTC) + timedelta(1))))
    fields[0] = 2
    assert decode_memory(json.dumps(fields).encode()) is None
