"""Settings to opened stores: what can be checked without them is checked first."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from memory_server.ports import Cache
from memory_server.settings import MemorySettings
from memory_server.stores.inmemory.cache import NullCache
from memory_server.stores.milvus.index import MilvusIndex
from memory_server.stores.milvus.wire import MilvusAddress
from memory_server.stores.postgres.errors import translated
from memory_server.stores.postgres.migrate import migrate
from memory_server.stores.postgres.pools import Pools, PoolSizes, open_pools
from memory_server.stores.postgres.profiles import check_profile
from memory_server.stores.redis.cache import RedisCache
from soma_contract.embedders.base import Embedder
from soma_contract.embedders.factory import build_embedder


@dataclass(frozen=True, slots=True)
class Stores:
    """The opened stores and the embedder."""

    pools: Pools
    index: MilvusIndex
    cache: Cache
    embedder: Embedder
    previous: Embedder | None

    @property
    def embedders(self) -> tuple[Embedder, ...]:
        """Every embedder, the one for new tenants first."""
        return (self.embedder,) if self.previous is None else (self.embedder, self.previous)


async def open_stores(settings: MemorySettings, stack: AsyncExitStack) -> Stores:
    """Migrate if an owner's address is given, then connect to every store; what is only said is checked first."""
    embedder = build_embedder(
        settings.embedder,
        model=settings.embedder_model,
        base_url=settings.embedder_base_url,
        api_key=settings.embedder_api_key.get_secret_value(),
        dimensions=settings.embedder_dimensions,
        threads=settings.embedder_threads,
        cache_dir=settings.cache_dir,
        sentences=settings.embedder_sentences,
    )
    previous = None
    if settings.previous_embedder:
        previous = build_embedder(
            settings.previous_embedder,
            model=settings.previous_embedder_model,
            base_url=settings.previous_embedder_base_url,
            api_key=settings.previous_embedder_api_key.get_secret_value(),
            dimensions=settings.previous_embedder_dimensions,
            threads=settings.embedder_threads,
            cache_dir=settings.cache_dir,
        )
    try:
        address = MilvusAddress.parse(settings.milvus_address, token=settings.milvus_token.get_secret_value())
    except ValueError as error:
        raise ValueError(f"SOMA_MILVUS_URI: {error}") from None
    if settings.postgres_admin_url is not None:
        with translated("migrate"):
            await migrate(settings.postgres_admin_url.get_secret_value())
    sizes = PoolSizes(settings.pool_interactive, settings.pool_indexing, settings.pool_bulk)
    url = settings.postgres_url.get_secret_value()
    pools = await stack.enter_async_context(open_pools(url, sizes, rows_kept_bytes=settings.recall_rows_mb * 2**20))
    await stack.enter_async_context(embedder)
    if previous is not None:
        await stack.enter_async_context(previous)
    await check_profile(pools, embedder.profile, previous.profile if previous is not None else None)
    index = await stack.enter_async_context(MilvusIndex(address))
    redis_url = settings.redis_url.get_secret_value()
    cache: Cache = await stack.enter_async_context(RedisCache(redis_url)) if redis_url else NullCache()
    return Stores(pools, index, cache, embedder, previous)
