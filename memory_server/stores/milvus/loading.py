"""Which collections are in the engine's memory: loaded when used, released when others need the room."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from memory_server.ports import CollectionLostError
from memory_server.stores.milvus.messages import common_pb2, milvus_pb2
from memory_server.stores.milvus.wire import (
    COMPONENT,
    EXECUTION_FAILED,
    LateError,
    MilvusWire,
    NotLoadedError,
    RefusedError,
)

_LOAD_POLL_S = 0.05
_FIRST_ROWS_TRIES = 5
_FIRST_ROWS_S = 0.02


class LoadedCollections:
    """Calls on collections that must be loaded, of which at most ``capacity`` are."""

    def __init__(self, wire: MilvusWire, capacity: int) -> None:
        self._wire = wire
        self._capacity = capacity
        self._names: OrderedDict[str, None] = OrderedDict()

    @property
    def names(self) -> tuple[str, ...]:
        """What this process has had loaded, the longest unused first."""
        return tuple(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def forget(self, name: str) -> None:
        """Take note that a collection is not loaded any more."""
        self._names.pop(name, None)

    async def call(self, name: str, method: str, request: Any, timeout_s: float) -> Any:
        """Call on a collection that must be loaded, loading it when another process let it go."""
        ends_at = asyncio.get_running_loop().time() + timeout_s
        await self.touch(name, timeout_s)
        try:
            return await self._wire.call(method, request, timeout_s=timeout_s)
        except NotLoadedError:
            self.forget(name)
        left_s = max(ends_at - asyncio.get_running_loop().time(), 0.001)
        await self.touch(name, left_s)
        left_s = max(ends_at - asyncio.get_running_loop().time(), 0.001)
        try:
            return await self._wire.call(method, request, timeout_s=left_s)
        except NotLoadedError as error:
            raise LateError("The vector index is still loading the collection.", component=COMPONENT) from error

    async def search(self, name: str, request: Any, ends_at: float) -> Any:
        """Search, again where the first rows of an empty collection are just arriving.

        The embedded engine then computes BM25 from half-updated statistics and refuses the NaN it gets.
        """
        loop = asyncio.get_running_loop()
        for _ in range(_FIRST_ROWS_TRIES):
            try:
                return await self.call(name, "Search", request, max(ends_at - loop.time(), 0.001))
            except RefusedError as error:
                if error.code != EXECUTION_FAILED or loop.time() + _FIRST_ROWS_S > ends_at:
                    raise
            await asyncio.sleep(_FIRST_ROWS_S)
        return await self.call(name, "Search", request, max(ends_at - loop.time(), 0.001))

    async def touch(self, name: str, timeout_s: float) -> None:
        """Mark a collection as used, load it if this process has not, and release the longest unused."""
        if name in self._names:
            self._names.move_to_end(name)
            return
        try:
            # Covers the release as well: a search that has to make room must still keep its deadline.
            async with asyncio.timeout(timeout_s):
                await self._load(name, timeout_s)
                self._names[name] = None
                while len(self._names) > self._capacity:
                    oldest, _ = self._names.popitem(last=False)
                    await self._release(oldest, timeout_s)
        except TimeoutError as error:
            raise LateError("The vector index is still loading the collection.", component=COMPONENT) from error

    async def _load(self, name: str, timeout_s: float) -> None:
        request = milvus_pb2.LoadCollectionRequest(collection_name=name)
        await self._wire.call("LoadCollection", request, timeout_s=timeout_s)
        state = milvus_pb2.GetLoadStateRequest(collection_name=name)
        while True:
            answer = await self._wire.call("GetLoadState", state, timeout_s=timeout_s)
            if answer.state == common_pb2.LoadState.LoadStateLoaded:
                return
            # A server loads in the background; there is nothing to wait on but the next answer.
            await asyncio.sleep(_LOAD_POLL_S)

    async def _release(self, name: str, timeout_s: float) -> None:
        request = milvus_pb2.ReleaseCollectionRequest(collection_name=name)
        try:
            await self._wire.call("ReleaseCollection", request, timeout_s=timeout_s)
        except (RefusedError, CollectionLostError):
            return  # it is gone already
