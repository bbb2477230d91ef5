"""Whether the configured embedder is the one that the stored vectors came from."""

from __future__ import annotations

from memory_server.stores.postgres import sql
from memory_server.stores.postgres.pools import Pools
from soma_contract.embedders.base import EmbeddingProfile
from soma_contract.errors import EmbeddingProfileMismatchError


async def check_profile(pools: Pools, profile: EmbeddingProfile, previous: EmbeddingProfile | None = None) -> None:
    """Raise EmbeddingProfileMismatchError if any tenant's memories are embedded with another profile than these."""
    known = [one.key for one in (profile, previous) if one is not None]
    async with pools.indexing.worker() as connection:
        row = await connection.fetchrow(sql.query("other_profile"), known)
    if row is None:
        return
    raise EmbeddingProfileMismatchError(
        f"{row['tenants']} tenants are embedded with {row['profile']} ({row['dimension']} dimensions), but this server "
        f"is set to {profile.key} ({profile.dimension} dimensions). Set SOMA_EMBEDDER, SOMA_EMBEDDER_MODEL and "
        "SOMA_EMBEDDER_DIMENSIONS back to that model, or name it in SOMA_PREVIOUS_EMBEDDER and its like and move the "
        "tenants with OperatorService.ReEmbed",
        expected=row["profile"],
        actual=profile.key,
    )
