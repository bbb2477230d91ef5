"""Graphs of a size that no test would make by calls, planted into the truth as a backup would be restored."""

from __future__ import annotations

import asyncpg

from soma_contract.tenant import Tenant

_MEMORIES = """
INSERT INTO memory_items (tenant, memory_id, namespace, text, coordinate, kind, created_at, updated_at, version,
                          content_hash, place_key)
SELECT $1, {id}, 'default', 'memory ' || n, ARRAY[0.0, 0.0, 0.0]::float8[], 'episodic', now(), now(), 1, '', 0
FROM generate_series(1, $2::int) AS n
"""
_LINKS = """
INSERT INTO links (tenant, source_id, target_id, relation, strength, version, created_at, updated_at)
SELECT $1, s, t, 'related', strength, 1, now(), now() FROM ({pairs}) AS p (s, t, strength)
ON CONFLICT DO NOTHING
"""
HUB = "SELECT {first}, {id}, 1.0 - n * 1e-6 FROM generate_series(2, $2::int) AS n"
"""The first memory linked to every other, less and less."""
CHAIN = "SELECT {id}, {next}, 0.9 FROM generate_series(1, $2::int - 1) AS n"
"""Each memory linked to the next."""
RANDOM = (
    "SELECT {id}, {other}, 0.5 + (n % 50) / 100.0"
    " FROM generate_series(1, $2::int) AS n CROSS JOIN generate_series(1, $3::int) AS k"
)
"""Each memory linked to some others all over."""


def memory_id(number: int) -> str:
    """The id of a planted memory; numbers start at 1."""
    return f"00000000-0000-7000-8000-{number:012x}"


async def plant(admin_url: str, tenant: Tenant, memories: int, pairs: str, *, each: int = 0) -> None:
    """Plant memories 1 to ``memories`` and the links among them that ``pairs`` describes, ``each`` a memory."""
    connection: asyncpg.Connection = await asyncpg.connect(admin_url)
    try:
        sql = _LINKS.format(pairs=pairs.format(**_NAMES))
        await connection.execute(_MEMORIES.format(**_NAMES), tenant.name, memories)
        await connection.execute(sql, *([tenant.name, memories, each] if "$3" in sql else [tenant.name, memories]))
        await connection.execute("ANALYZE memory_items, links")
    finally:
        await connection.close()


def _id(number: str) -> str:
    return f"('00000000-0000-7000-8000-' || lpad(to_hex({number}), 12, '0'))::uuid"


_NAMES = {
    "id": _id("n"),
    "next": _id("n + 1"),
    "first": _id("1"),
    # A multiplicative walk over the numbers: far apart, the same in every run, never the memory itself.
    "other": _id("(n - 1 + 1 + (n::bigint * 7919 + k::bigint * 104729) % ($2 - 1))::bigint % $2 + 1"),
}
