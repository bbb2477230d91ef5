"""Milvus' messages and stubs, taken out of pymilvus without importing it.

Importing pymilvus imports its object model, pandas and requests: a second of start and 60 MB in every worker,
none of which is used here.  So its generated modules are imported under a bare parent, which is taken away
again: whoever imports pymilvus itself later gets it whole, with these same modules in it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def _generated(name: str) -> Any:
    if "pymilvus" in sys.modules:
        return import_module(f"pymilvus.grpc_gen.{name}")
    spec = find_spec("pymilvus")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("pymilvus is not installed", name="pymilvus")
    parent = ModuleType("pymilvus")
    parent.__path__ = list(spec.submodule_search_locations)
    sys.modules["pymilvus"] = parent
    try:
        return import_module(f"pymilvus.grpc_gen.{name}")
    finally:
        del sys.modules["pymilvus"]


common_pb2 = _generated("common_pb2")
milvus_pb2 = _generated("milvus_pb2")
milvus_pb2_grpc = _generated("milvus_pb2_grpc")
schema_pb2 = _generated("schema_pb2")
