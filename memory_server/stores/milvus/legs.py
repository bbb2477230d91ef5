"""The two legs of a search: requests out, hits in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from memory_server.ports import IndexHit
from memory_server.stores.milvus.messages import common_pb2, milvus_pb2
from memory_server.stores.milvus.schema import DENSE, SPARSE, keyword_prefix
from soma_contract.tenant import Tenant

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEG_NAMES: Final = {DENSE: "dense", SPARSE: "keyword"}
"""What a leg is called outside, by the column it searches."""


def queries(dense: NDArray[np.float32] | None, keyword_text: str | None) -> dict[str, bytes]:
    """Return the packed query of each leg that is asked for, by its column."""
    packed = {}
    if dense is not None:
        values = np.ascontiguousarray(dense, dtype="<f4").tobytes()
        packed[DENSE] = _placeholder(common_pb2.PlaceholderType.FloatVector, values)
    if keyword_text is not None:
        text = keyword_prefix(keyword_text).encode("utf-8", "replace")
        packed[SPARSE] = _placeholder(common_pb2.PlaceholderType.VarChar, text)
    return packed


def search_request(
    name: str, column: str, query: bytes, expression: str, limit: int, *, embedded: bool, strong: bool
) -> milvus_pb2.SearchRequest:
    """Return the request of one leg."""
    request = milvus_pb2.SearchRequest(
        collection_name=name,
        dsl=expression,
        dsl_type=common_pb2.DslType.BoolExprV1,
        placeholder_group=query,
        nq=1,
        # Otherwise as the collection was created: bounded staleness.
        use_default_consistency=not strong,
        consistency_level=common_pb2.ConsistencyLevel.Strong,
    )
    parameters = {
        "anns_field": column,
        "topk": str(limit),
        "round_decimal": "-1",
        "metric_type": "IP" if column == DENSE else "BM25",
        # HNSW looks at `ef` candidates; twice the limit keeps its recall near exact under filters.
        "params": f'{{"ef": {max(64, 2 * limit)}}}' if column == DENSE and not embedded else "{}",
    }
    for key, value in parameters.items():
        request.search_params.add(key=key, value=value)
    return request


def hits(answer: Any, tenant: Tenant) -> tuple[IndexHit, ...]:
    """Return the hits of an answer, best first, ties by id; rows of other tenants are left out."""
    results = answer.results
    keys = results.ids.str_id.data
    if not keys:
        return ()
    prefix = f"{tenant.name}|"
    found = [
        IndexHit(key[len(prefix) :], score)
        for key, score in zip(keys, results.scores, strict=True)
        if key.startswith(prefix)
    ]
    found.sort(key=lambda hit: (-hit.score, hit.memory_id))
    return tuple(found)


def _placeholder(kind: int, value: bytes) -> bytes:
    group = common_pb2.PlaceholderGroup()
    group.placeholders.add(tag="$0", type=kind, values=[value])
    packed: bytes = group.SerializeToString()
    return packed
