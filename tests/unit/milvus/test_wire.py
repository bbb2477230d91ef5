"""Addresses, names and messages of the Milvus adapter."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from memory_server.ports import Collection
from memory_server.stores.milvus.messages import schema_pb2
from memory_server.stores.milvus.schema import Analysis, creation, epoch_of, index_creations, physical_name
from memory_server.stores.milvus.wire import MilvusAddress

COLLECTION = Collection("soma_memories", 3, "p", 384)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("http://127.0.0.1:29530", MilvusAddress("127.0.0.1:29530")),
        ("http://milvus", MilvusAddress("milvus:19530")),
        ("http://[::1]:1", MilvusAddress("[::1]:1")),
        ("https://m.example/soma", MilvusAddress("m.example:19530", database="soma", tls=True)),
        ("http://root:a%40b@m:1", MilvusAddress("m:1", token="root:a@b")),
    ],
)
def test_an_address_is_read_from_its_uri(uri: str, address: MilvusAddress) -> None:
    assert MilvusAddress.parse(uri) == address


@pytest.mark.parametrize("uri", ["", "milvus:19530", "./milvus.db", "unix:/tmp/x", "http://"])
def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="Milvus address"):
        MilvusAddress.parse(uri)


def test_an_address_does_not_show_its_token() -> None:
    assert "secret" not in repr(MilvusAddress.parse("http://m:1", token="secret"))


def test_the_name_in_the_engine_changes_with_all_that_makes_rows_useless() -> None:
    names = {
        physical_name(collection, analysis)
        for collection in (COLLECTION, replace(COLLECTION, epoch=4), replace(COLLECTION, dimension=8))
        for analysis in (Analysis(), Analysis(language="german"), Analysis(b=0.5))
    }
    assert len(names) == 9
    assert physical_name(COLLECTION, Analysis()) == physical_name(COLLECTION, Analysis())


def test_a_name_tells_its_epoch_and_no_other_collections() -> None:
    name = physical_name(COLLECTION, Analysis())
    found = epoch_of(name, "soma_memories")
    assert found is not None
    assert found[0] == 3
    assert epoch_of(name, "soma") is None
    assert epoch_of(name, "soma_memories_e3") is None
    assert epoch_of("soma_memories", "soma_memories") is None


@pytest.mark.parametrize("name", ["", "1a", "a-b", 'a" or', "a" * 202])
def test_a_name_that_milvus_would_refuse_is_refused_here(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        physical_name(replace(COLLECTION, name=name), Analysis())


def test_a_server_gets_the_tenant_as_partition_key_and_hnsw_and_the_embedded_engine_does_not() -> None:
    for embedded in (True, False):
        schema = schema_pb2.CollectionSchema()
        schema.ParseFromString(creation("c", 384, Analysis(), embedded=embedded).schema)
        fields = {field.name: field for field in schema.fields}
        assert [name for name, field in fields.items() if field.is_primary_key] == ["pk"]
        partition_keys = [name for name, field in fields.items() if field.is_partition_key]
        assert partition_keys == ([] if embedded else ["tenant"])
        assert ("tag_digests" in fields) is embedded
        dense, sparse = index_creations("c", Analysis(), embedded=embedded)
        kinds = {pair.key: pair.value for pair in dense.extra_params}
        assert kinds["index_type"] == ("FLAT" if embedded else "HNSW")
        assert '"bm25_k1": 1.2' in {pair.key: pair.value for pair in sparse.extra_params}["params"]


def test_the_messages_come_without_pymilvus_and_leave_it_whole() -> None:
    script = """
import sys
import memory_server.stores.milvus.messages as messages
assert "pymilvus" not in sys.modules and "pandas" not in sys.modules
import pymilvus
from pymilvus.grpc_gen import milvus_pb2
assert milvus_pb2 is messages.milvus_pb2
assert pymilvus.MilvusClient.__name__ == "MilvusClient"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
