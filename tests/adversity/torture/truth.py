"""What Postgres holds in the end, read as its owner, past every server and every policy."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg


@dataclass(frozen=True, slots=True)
class Answered:
    """What the truth remembers of a request."""

    tenant: str
    memory_id: str
    revision: int
    version: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Truth:
    """The state of all tenants."""

    answered: dict[str, Answered]
    """By request id."""
    doubled: list[str]
    """Request ids with more than one record."""
    texts: dict[tuple[str, str], str]
    """By tenant and key, what lives."""
    changes: dict[str, list[int]]
    """By tenant, the revisions of the changelog in order, each as often as it has lines."""
    revisions: dict[str, int]
    """By tenant, the last revision."""
    versions: dict[tuple[str, str], list[int]]
    """By tenant and memory, the kept versions and the current one, ascending."""
    written: dict[str, int]
    """By tenant, how many revisions put or forgot a memory or linked two."""


async def read_truth(url: str) -> Truth:
    """Read everything."""
    connection = await asyncpg.connect(url)
    try:
        records = await connection.fetch("SELECT * FROM idempotency")
        items = await connection.fetch("SELECT tenant, memory_id, key, text, version, deleted FROM memory_items")
        older = await connection.fetch("SELECT tenant, memory_id, version FROM memory_versions")
        lines = await connection.fetch("SELECT tenant, revision, op FROM changelog ORDER BY tenant, revision, ordinal")
        counters = await connection.fetch("SELECT tenant, revision FROM tenant_revisions")
    finally:
        await connection.close()
    answered: dict[str, Answered] = {}
    doubled = []
    for record in records:
        if record["request_id"] in answered:
            doubled.append(record["request_id"])
        answered[record["request_id"]] = Answered(
            record["tenant"], str(record["memory_id"]), record["revision"], record["version"], record["changed"]
        )
    versions: dict[tuple[str, str], list[int]] = {}
    for row in [*older, *items]:
        versions.setdefault((row["tenant"], str(row["memory_id"])), []).append(row["version"])
    changes: dict[str, list[int]] = {}
    for line in lines:
        changes.setdefault(line["tenant"], []).append(line["revision"])
    return Truth(
        answered=answered,
        doubled=doubled,
        texts={(row["tenant"], row["key"]): row["text"] for row in items if not row["deleted"] and row["key"]},
        changes=changes,
        revisions={row["tenant"]: row["revision"] for row in counters},
        versions={key: sorted(numbers) for key, numbers in versions.items()},
        written={tenant: len(set(revisions)) for tenant, revisions in changes.items()},
    )
