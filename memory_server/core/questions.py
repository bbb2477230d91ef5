"""Understanding a recall's query: its terms, names, date and vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memory_server.core.embedding import ActorNames, Embedding
from memory_server.domain.late_interaction import INT8_SCALE
from memory_server.domain.pool import QueryFeatures
from memory_server.ports import Clock, Journal
from soma_contract.coordinate import parse_coordinate
from soma_contract.errors import DimensionMismatchError, MemoryNotFoundError, SomaError
from soma_contract.filters import Filter, namespaces_of
from soma_contract.ids import parse_memory_id
from soma_contract.limits import LIMITS
from soma_contract.memory import DEFAULT_NAMESPACE, Memory, Target
from soma_contract.recall import RecallQuery
from soma_contract.tenant import Tenant
from soma_contract.text.actors import Mention, known_actors
from soma_contract.text.analysis import analyzer
from soma_contract.text.dates import DateMention, named_date

_NO_TOKENS = np.zeros((0, 64), np.float32)
_NO_IDS = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A query that was understood.

    ``term_weights`` aligns with ``terms``: how often the query repeats each.  ``exact`` is what the
    query may name outright, ``excluded`` the memory a like-query starts from.
    """

    text: str
    terms: tuple[str, ...]
    term_weights: NDArray[np.float64]
    mention: Mention
    date: DateMention | None
    features: QueryFeatures
    token_ids: NDArray[np.int32]
    exact: Target | None = None
    excluded: str = ""
    embedding_failure: str = ""


@dataclass(frozen=True, slots=True)
class Questions:
    """Reads queries; the embedder's failure is noted, not raised: keywords still find."""

    embedding: Embedding
    actors: ActorNames
    journal: Journal
    clock: Clock

    async def understood(self, tenant: Tenant, query: RecallQuery, filter: Filter) -> Question:
        """Return the question without vectors.  Raises MemoryNotFoundError for an unknown memory to be like."""
        for vector in (query.embedding, query.text_embedding):
            if vector is not None and vector.dimension != self.embedding.profile.dimension:
                raise DimensionMismatchError(
                    expected=str(self.embedding.profile.dimension), actual=str(vector.dimension)
                )
        text, excluded = query.text, ""
        if query.like is not None:
            liked = await self._liked(tenant, query.like)
            text, excluded = liked.text, liked.memory_id
        names = known_actors(frozenset(await self._names(tenant, filter))) if text else known_actors(frozenset())
        counts = analyzer().counts(text)
        return Question(
            text=text,
            terms=tuple(counts),
            term_weights=np.fromiter(counts.values(), np.float64, len(counts)),
            mention=names.mentioned(text) if text else Mention(),
            date=named_date(text, self.clock.now()) if text else None,
            features=QueryFeatures(vector=None, tokens=_NO_TOKENS),
            token_ids=_NO_IDS,
            exact=_named(query, filter),
            excluded=excluded,
        )

    async def embedded(
        self,
        tenant: Tenant,
        query: RecallQuery,
        question: Question,
        filter: Filter,
        deadline_s: float,
        *,
        with_tokens: bool = True,
    ) -> Question:
        """Return the question with its vectors, or with the reason why there are none."""
        if query.embedding is not None:
            return replace(question, features=QueryFeatures(_unit(query.embedding.array), _NO_TOKENS))
        if query.text_embedding is not None and not with_tokens:
            return replace(question, features=QueryFeatures(_unit(query.text_embedding.array), _NO_TOKENS))
        names = known_actors(frozenset(await self._names(tenant, filter)))
        try:
            (vectors,) = await self.embedding.of_texts([names.cut(question.text)], urgent=True, deadline_s=deadline_s)
        except SomaError as error:
            failed = replace(question, embedding_failure=f"{error.reason}:embedder")
            if query.text_embedding is None:
                return failed
            return replace(failed, features=QueryFeatures(_unit(query.text_embedding.array), _NO_TOKENS))
        dense = vectors.dense if query.text_embedding is None else _unit(query.text_embedding.array)
        tokens = vectors.tokens.astype(np.float32) / np.float32(INT8_SCALE)
        return replace(question, features=QueryFeatures(dense, tokens), token_ids=vectors.token_ids)

    async def _names(self, tenant: Tenant, filter: Filter) -> list[str]:
        names: list[str] = []
        for namespace in namespaces_of(filter):
            names.extend(await self.actors.names(tenant, namespace))
        return names

    async def _liked(self, tenant: Tenant, target: Target) -> Memory:
        (memory,) = await self.journal.get(tenant, [target])
        if memory is None:
            raise MemoryNotFoundError(memory_id=target.memory_id, key=target.key, field="like")
        return memory


def _named(query: RecallQuery, filter: Filter) -> Target | None:
    """What a text may name outright: an id, a coordinate, or a key in the first searched namespace."""
    text = query.text.strip()
    if not text or len(text) > LIMITS.label_bytes:
        return None
    try:
        return Target(memory_id=parse_memory_id(text))
    except ValueError:
        pass
    namespace = next(iter(namespaces_of(filter)), DEFAULT_NAMESPACE)
    if text.count(",") == 2:
        try:
            return Target(namespace=namespace, coordinate=parse_coordinate(text))
        except ValueError:
            pass
    return Target(namespace=namespace, key=text)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (vector / np.float32(np.linalg.norm(vector.astype(np.float64)))).astype(np.float32)
    return scaled
