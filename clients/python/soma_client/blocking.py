"""The blocking client: the asynchronous one on a loop of its own in a background thread."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from rpckit.channel import ChannelTls
from soma_client import small_door, transferring
from soma_client.calling import TraceHeaders
from soma_client.client import DEFAULT_TARGET, SomaClient
from soma_client.recalling import RecallStream
from soma_contract.memory import DEFAULT_NAMESPACE
from soma_contract.recall import Hit, Recalled, Summary

P = ParamSpec("P")
R = TypeVar("R")


class LoopThread:
    """An event loop in a daemon thread, for code that has none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="soma-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine there and wait for it; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, source: AsyncIterator[R]) -> Iterator[R]:
        """Iterate over an async iterator item by item; leaving early closes it."""
        try:
            while True:
                try:
                    yield self.run(_following(source))
                except StopAsyncIteration:
                    return
        finally:
            self.run(_close(source))

    def stop(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _following(source: AsyncIterator[R]) -> R:
    return await anext(source)


async def _close(source: object) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()


async def _called(make: Callable[[], R]) -> R:
    return make()


def _waiting(
    method: Callable[Concatenate[SomaClient, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Soma, P], R]:
    @functools.wraps(method)
    def wait(self: Soma, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._thread.run(method(self.client, *args, **kwargs))

    return wait


def _iterating(
    method: Callable[Concatenate[SomaClient, P], AsyncIterator[R]],
) -> Callable[Concatenate[Soma, P], Iterator[R]]:
    @functools.wraps(method)
    def iterate(self: Soma, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        source = self._thread.run(_called(lambda: method(self.client, *args, **kwargs)))
        return self._thread.iterate(source)

    return iterate


class Recollection(Iterator[Hit]):
    """A recall's hits, best first; ``summary`` is there once they have all been read."""

    def __init__(self, stream: RecallStream, thread: LoopThread) -> None:
        self._stream = stream
        self._hits = thread.iterate(stream)

    def __next__(self) -> Hit:
        return next(self._hits)

    @property
    def summary(self) -> Summary:
        """What was searched; RuntimeError before the last hit was read."""
        return self._stream.summary

    def all(self) -> Recalled:
        """The rest of the answer at once."""
        hits = tuple(self)
        return Recalled(hits, self.summary)


def _recalling(
    method: Callable[Concatenate[SomaClient, P], RecallStream],
) -> Callable[Concatenate[Soma, P], Recollection]:
    @functools.wraps(method)
    def recall(self: Soma, /, *args: P.args, **kwargs: P.kwargs) -> Recollection:
        return Recollection(self._thread.run(_called(lambda: method(self.client, *args, **kwargs))), self._thread)

    return recall


class Soma:
    """SomaClient for code without an event loop: the same methods, which wait; iterators instead of async ones.

        with Soma.connect(key=key) as soma:
            soma.remember("Ada prefers tea")
            for hit in soma.recall("what does Ada drink?"):
                print(hit.score, hit.memory.text)

    May be used from several threads; must not be used inside an event loop, which it would block.
    """

    def __init__(self, client: SomaClient, thread: LoopThread, *, owns_thread: bool = True) -> None:
        self.client = client
        self._thread = thread
        self._owns_thread = owns_thread

    @classmethod
    def connect(
        cls,
        target: str = DEFAULT_TARGET,
        *,
        key: str,
        tenant: str = "",
        persona: str = "",
        session: str = "",
        namespace: str = DEFAULT_NAMESPACE,
        tls: ChannelTls | None = None,
        trace: TraceHeaders | None = None,
    ) -> Self:
        """See SomaClient.connect; close the client, or use ``with``."""
        thread = LoopThread()

        def make() -> SomaClient:
            return SomaClient.connect(
                target,
                key=key,
                tenant=tenant,
                persona=persona,
                session=session,
                namespace=namespace,
                tls=tls,
                trace=trace,
            )

        try:
            return cls(thread.run(_called(make)), thread)
        except BaseException:
            thread.stop()
            raise

    def bound(
        self,
        *,
        key: str | None = None,
        tenant: str | None = None,
        persona: str | None = None,
        session: str | None = None,
        namespace: str | None = None,
    ) -> Self:
        """See SomaClient.bound."""
        client = self.client.bound(key=key, tenant=tenant, persona=persona, session=session, namespace=namespace)
        return type(self)(client, self._thread, owns_thread=False)

    ready = _waiting(SomaClient.ready)
    remember = _waiting(SomaClient.remember)
    remember_many = _iterating(SomaClient.remember_many)
    remember_batch = _waiting(SomaClient.remember_batch)
    get = _waiting(SomaClient.get)
    batch_get = _waiting(SomaClient.batch_get)
    update = _waiting(SomaClient.update)
    forget = _waiting(SomaClient.forget)
    forget_matching = _waiting(SomaClient.forget_matching)
    list = _iterating(SomaClient.list)
    history = _iterating(SomaClient.history)
    recall = _recalling(SomaClient.recall)
    recall_all = _waiting(SomaClient.recall_all)
    recall_many = _iterating(SomaClient.recall_many)
    link = _waiting(SomaClient.link)
    unlink = _waiting(SomaClient.unlink)
    get_links = _iterating(SomaClient.get_links)
    neighbors = _iterating(SomaClient.neighbors)
    find_path = _iterating(SomaClient.find_path)
    subgraph = _iterating(SomaClient.subgraph)
    rank = _waiting(SomaClient.rank)
    used_together = _waiting(SomaClient.used_together)
    create_import = _waiting(SomaClient.create_import)
    import_records = _waiting(SomaClient.import_records)
    get_import = _waiting(SomaClient.get_import)
    cancel_import = _waiting(SomaClient.cancel_import)
    import_source = _waiting(transferring.import_source)
    import_errors = _iterating(SomaClient.import_errors)
    export_file = _waiting(transferring.export_file)
    export_records = _iterating(SomaClient.export_records)
    watch = _iterating(SomaClient.watch)
    save_memory = _waiting(small_door.save_memory)
    load_memory = _waiting(small_door.load_memory)
    search_memory = _waiting(small_door.search_memory)

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._thread.run(self.client.close())
        if self._owns_thread:
            self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
