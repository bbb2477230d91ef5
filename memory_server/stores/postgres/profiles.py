"""Whether the configured embedder is the one that the stored vectors came from."""

from __future__ import annotations

from memory_server.stores.postgres import sql
from memory_server.stores.postgres.pools import Pools
from soma_contract.embedders.base import EmbeddingProfile
from soma_contract.errors import EmbeddingProfileMismatchError


async def check_profile(pools: Pools, profile: EmbeddingProfile) -> None:
    """Raise EmbeddingProfileMismatchError if any tenant's memories are embedded with another profile."""
    async with pools.indexing.worker() as connection:
        row = await connection.fetchrow(sql.query("other_profile"), profile.key)
    if row is None:
        return
    raise EmbeddingProfileMismatchError(
        f"{row['tenants']} tenants are embedded with {row['profile']} ({row['dimension']} dimensions), but this server "
        f"is set to {profile.key} ({profile.dimension} dimensions). Set SOMA_EMBEDDER, SOMA_EMBEDDER_MODEL and "
        "SOMA_EMBEDDER_DIMENSIONS back to that model, or start with it and re-embed the tenants with "
        "OperatorService.ReEmbed",
        expected=row["profile"],
        actual=profile.key,
    )
