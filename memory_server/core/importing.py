"""The verb *import*: jobs, and the admission of their records; a stream of one is in ``import_stream``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from memory_server.bulk_ports import ImportStore
from memory_server.domain.imports import Admitted, Item
from soma_contract.completing import completed_memory
from soma_contract.errors import (
    DimensionMismatchError,
    EmbeddingProfileMismatchError,
    ImportNotFoundError,
    SomaError,
)
from soma_contract.memory import Memory
from soma_contract.records import ImportJob, ImportOptions, Record, Refused
from soma_contract.tenant import Tenant

_PROFILE = re.compile(r".+/\d+(@\S+)?")
"""The form of an embedding profile's key, which an export gives as the model of vectors that its server made."""


class Holder(Protocol):
    """A stream that holds a job."""

    def lose(self) -> None:
        """Another stream has taken the job over."""
        ...


@dataclass(slots=True)
class Importing:
    """Makes and reads jobs, and says what may be stored.

    ``model`` and ``profile`` name what this server's embedder makes, of ``dimension`` components.
    """

    store: ImportStore
    dimension: int
    model: str
    profile: str
    on_written: Callable[[], None] = lambda: None
    streams: int = 0
    """How many streams run in this process: they share what memory chunks may take."""
    _holders: dict[tuple[Tenant, str], Holder] = field(default_factory=dict)

    async def create(self, tenant: Tenant, options: ImportOptions) -> ImportJob:
        """Make a job, or find the one that the same request made."""
        return await self.store.create(tenant, options)

    async def get(self, tenant: Tenant, import_id: str) -> ImportJob:
        """Read a job; raises ImportNotFoundError."""
        return _found(await self.store.get(tenant, import_id), import_id)

    async def cancel(self, tenant: Tenant, import_id: str) -> ImportJob:
        """End a job; raises ImportNotFoundError."""
        return _found(await self.store.cancel(tenant, import_id), import_id)

    async def refusals(self, tenant: Tenant, import_id: str, *, after: int, limit: int) -> list[Refused]:
        """Read a page of refusals; raises ImportNotFoundError."""
        await self.get(tenant, import_id)
        return await self.store.refusals(tenant, import_id, after=after, limit=limit)

    @contextmanager
    def held(self, tenant: Tenant, import_id: str, holder: Holder) -> Iterator[None]:
        """Note which stream holds a job here, and tell the one before."""
        place = tenant, import_id
        before = self._holders.get(place)
        self._holders[place] = holder
        if before is not None:
            before.lose()
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1
            if self._holders.get(place) is holder:
                del self._holders[place]

    def admitted(self, record: Record | SomaError) -> Item:
        """Complete and check a record; one that may not be stored becomes its error."""
        if not isinstance(record, Memory):
            return record
        try:
            return self._admitted(record)
        except SomaError as error:
            return error

    def _admitted(self, memory: Memory) -> Admitted:
        embedding = memory.embedding
        if embedding is None:
            return Admitted(completed_memory(memory, embedding_model=""))
        if embedding.dimension != self.dimension:
            raise DimensionMismatchError(expected=str(self.dimension), actual=str(embedding.dimension))
        if memory.embedding_model == self.profile:
            memory = completed_memory(memory, embedding_model="")
            return Admitted(replace(memory, embedding=None), memory.embedding)
        if _PROFILE.fullmatch(memory.embedding_model):
            # A vector that some server's embedder made, and this one's is another.
            raise EmbeddingProfileMismatchError(
                "this vector was made by another embedding profile; export without embeddings to have it made anew",
                expected=self.profile,
                actual=memory.embedding_model,
            )
        return Admitted(completed_memory(memory, embedding_model=memory.embedding_model or self.model))


def _found(job: ImportJob | None, import_id: str) -> ImportJob:
    if job is None:
        raise ImportNotFoundError(import_id=import_id)
    return job
