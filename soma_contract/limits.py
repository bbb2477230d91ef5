"""The limits of the contract: served by GetServerInfo, stated in the protos, enforced at the edge."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit with its unit; a test compares them with the comments in the protos."""

    request_bytes: int = 4 * 1024 * 1024
    response_bytes: int = 3 * 1024 * 1024
    text_bytes: int = 128 * 1024
    payload_bytes: int = 128 * 1024
    json_depth: int = 32
    json_nodes: int = 10_000
    json_number_digits: int = 40
    label_bytes: int = 256
    tags: int = 64
    dimensions: int = 4_096
    batch_items: int = 500
    recall_limit: int = 200
    recall_limit_default: int = 10
    page_size: int = 1_000
    page_size_default: int = 50
    neighbours: int = 10_000
    hops: int = 3
    path_length: int = 10
    filter_nodes: int = 256
    filter_depth: int = 16
    filter_values: int = 500
    chunk_records: int = 1_000
    chunk_bytes: int = 3 * 1024 * 1024
    namespaces: int = 256
    streams_per_tenant: int = 64
    min_year: int = 1970
    max_year: int = 2200
    ttl_max_s: float = 100 * 365.25 * 86_400
    long_entry_tokens: int = 400


LIMITS = Limits()
