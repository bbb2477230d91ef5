"""What the memory server's use cases need from the outside, as Protocols.

Every store method takes the tenant first.  Each port has a full in-memory twin in
``stores/inmemory`` and one conformance suite that twin and real store pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from memory_server.domain.paths import Step as Step
from soma_contract.embedders.base import Embedder as Embedder
from soma_contract.errors import SomaError
from soma_contract.filters import Filter
from soma_contract.links import Link, LinkCommand, LinkKey, LinkWritten, Reach
from soma_contract.memory import Command, Memory, Origin, Target, View, Written
from soma_contract.tenant import Tenant

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# --- the truth -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeywordTerms:
    """What keyword search knows of a text: distinct ``terms`` with their ``counts``, and how many in all.

    ``keyword_text`` is what was analysed, for an index that analyses itself.
    """

    terms: tuple[str, ...]
    counts: tuple[int, ...]
    length: int
    keyword_text: str


class Analyse(Protocol):
    """Reads the keyword terms of a memory; the same memory gives the same terms everywhere."""

    def __call__(self, memory: Memory) -> KeywordTerms:
        """Return the terms of actor, text and date."""
        ...


LISTING_ORDERS = ("memory_id", "key", "created_at", "updated_at", "occurred_at", "importance", "relevance")
"""What a list can be ordered by; memories without the value come first, in descending order last."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a list: ordered by (the order's field, id); ``after`` is the last page's end."""

    filter: Filter
    limit: int
    order: str = "memory_id"
    descending: bool = False
    after: tuple[str, ...] = ()
    view: View = View.BASIC

    def end(self, last: Memory) -> tuple[str, ...]:
        """What the page after one that ended with this memory comes after."""
        if self.order == "memory_id":
            return (last.memory_id,)
        value = getattr(last, self.order)
        if value is None:
            return "", last.memory_id
        return value.isoformat() if isinstance(value, datetime) else str(value), last.memory_id


@dataclass(frozen=True, slots=True)
class MemoryPage:
    """Memories of one page and where the next one starts; empty ``next_after`` ends the list."""

    memories: tuple[Memory, ...]
    next_after: tuple[str, ...] = ()


class Journal(Protocol):
    """The truth: memories, their versions, the changelog and the idempotency records."""

    async def write(
        self,
        tenant: Tenant,
        commands: Sequence[Command],
        *,
        origin: Origin | None = None,
        atomic: bool = False,
        deadline_s: float | None = None,
    ) -> list[Written | SomaError]:
        """Commit commands in order; each answers what it did or why it was refused.

        Concurrent calls of one tenant may share a transaction.  With ``atomic`` the first refusal
        refuses them all and is raised.  Raises BudgetSpentError when ``deadline_s`` seconds were not
        enough and ComponentUnavailableError when the store is away; either way the same commands with
        the same request ids can be repeated.
        """
        ...

    async def get(
        self,
        tenant: Tenant,
        targets: Sequence[Target],
        *,
        as_of: datetime | None = None,
        view: View = View.BASIC,
    ) -> list[Memory | None]:
        """Read memories in the order of the targets; absent, deleted or expired ones are None.

        ``as_of`` reads the version that was current then, of memories that still live.  FULL brings the
        embedding: the supplied one, else the one made for this version once there is one.
        """
        ...

    async def list_memories(self, tenant: Tenant, listing: Listing) -> MemoryPage:
        """Read one page of the memories that match.

        Raises FieldViolationError for an order that is not one of LISTING_ORDERS.
        """
        ...

    async def history(self, tenant: Tenant, memory_id: str, *, before_version: int | None, limit: int) -> list[Memory]:
        """Read the kept versions of a living memory, newest first."""
        ...

    async def matching_ids(self, tenant: Tenant, filter: Filter, limit: int) -> list[str]:
        """Read the ids of up to ``limit`` live memories that match, in id order."""
        ...

    async def revision(self, tenant: Tenant) -> int:
        """Read the tenant's last committed revision; 0 for none."""
        ...


# --- what recall reads from the truth ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TermStats:
    """Corpus statistics of one tenant and its searched namespaces, aligned with the query's terms."""

    rows: int
    mean_length: float
    frequencies: NDArray[np.int64]
    revision: int | None = None
    """As of which of the tenant's revisions they and the rows beside them were read; None where that is not told."""
    open: OpenRows | None = None
    """What the index may not hold; None where that was not asked for."""


@dataclass(frozen=True, slots=True)
class OpenRows:
    """Rows of a pool that the index may not hold yet, where there are few of them.

    ``ids`` are those that match; ``pending_rows`` of them are un-indexed.  With ``more`` there are more than are read
    along with a pool, and none is in it for that reason.
    """

    ids: tuple[str, ...]
    pending_rows: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """What the embedder left for one version of a memory.

    ``dense`` float32 (d,), unit norm; ``sentences`` int8 (n, d); ``tokens`` int8 (m, 64) with
    ``token_ids`` int32 (m,).  Empty matrices where the embedder gives none.
    """

    dense: NDArray[np.float32]
    sentences: NDArray[np.int8]
    tokens: NDArray[np.int8]
    token_ids: NDArray[np.int32]


@dataclass(slots=True, eq=False)
class PoolRow:
    """A live memory that may become a hit, with all that scoring needs.

    ``term_counts`` int32 is aligned with the query's terms; ``length`` counts all its terms.
    ``vectors`` is None until the memory is embedded in this version.
    """

    memory: Memory
    vectors: StoredVectors | None
    term_counts: NDArray[np.int32]
    length: int
    neighbour: bool = False
    importance_rank: float | None = None


@dataclass(frozen=True, slots=True)
class Overlay:
    """Rows that the index may not hold yet.

    ``keyword_ids`` are the best by BM25 among them, ``vector_ids`` with ``vectors`` (n, d) the newest
    embedded ones, ``unembedded`` the newest memories still without a vector.  ``pending_rows`` counts the
    un-indexed rows that match.  ``truncated`` when there are too many to look at one by one: then only the
    newest are in ``vectors`` and ``unembedded``, ``keyword_ids`` are the best of all rows, indexed or not,
    and ``pending_rows`` counts up to 10,000 whether they match or not.
    """

    pending_rows: int
    keyword_ids: tuple[str, ...]
    vector_ids: tuple[str, ...]
    vectors: NDArray[np.float32]
    unembedded: tuple[Memory, ...]
    truncated: bool = False


class RecallSource(Protocol):
    """What recall reads from the truth: overlay, keyword search and the pool."""

    async def overlay(
        self,
        tenant: Tenant,
        filter: Filter,
        *,
        terms: Sequence[str],
        epoch: int,
        profile: str,
        keyword_limit: int = 50,
        vector_limit: int = 2_000,
        unembedded_limit: int = 16,
    ) -> Overlay:
        """Search the rows that the index does not hold, or only took in within the last 10 s.

        ``epoch`` is the index epoch of the collection that is searched meanwhile.  No row falls between the two
        searches as long as this one reads at most a few seconds after the other began.
        """
        ...

    async def keyword_search(
        self, tenant: Tenant, filter: Filter, *, terms: Sequence[str], limit: int
    ) -> list[tuple[str, float]]:
        """Search all live rows by BM25 over stored terms; (id, score), best first."""
        ...

    async def vector_scan(
        self,
        tenant: Tenant,
        filter: Filter,
        *,
        profile: str,
        limit: int,
    ) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Read (ids, dense vectors) of up to ``limit`` matching rows, for selective filters."""
        ...

    async def pool(
        self,
        tenant: Tenant,
        filter: Filter,
        ids: Sequence[str],
        *,
        terms: Sequence[str],
        profile: str,
        neighbours: bool,
        details: bool = True,
        exact: Target | None = None,
        exact_text: str = "",
        epoch: int | None = None,
    ) -> tuple[list[PoolRow], TermStats]:
        """Re-read candidates and bring what scoring needs, in one round trip.

        Without ``details`` the vectors need not bring more than the dense one: no sentences, no tokens.

        Only rows of this tenant that are live and match the filter come back, whatever the ids
        say.  With ``neighbours`` the direct session neighbours of the candidates come too.  The
        memory named by ``exact``, and those whose text is verbatim ``exact_text``, come in any case.
        With ``epoch``, that of the collection that was searched, the rows that the index does not hold, or only took
        in within the last 10 s, come as well, where they are few: `TermStats.open` tells.
        """
        ...

    async def importance_counts(self, tenant: Tenant, namespace: str, *, fresh_s: float) -> Mapping[int, int]:
        """Count a namespace's importances by bucket of a QuantileSketch; counts of an age below ``fresh_s`` will do."""
        ...


# --- the index pipeline --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Collection:
    """An index collection: its name in the index, its epoch, and the embedding profile it holds.

    The epoch grows whenever the collection had to be made anew; a row indexed in an older epoch
    counts as not indexed.  ``tenant_name`` is set for a dedicated collection.
    """

    name: str
    epoch: int
    profile: str
    dimension: int
    tenant_name: str = ""
    filled: bool = False
    """Whether rows were ever settled in this epoch; only then is a missing collection a loss."""

    @property
    def epoch_known(self) -> bool:
        """Whether finding the collection absent in the index means that rows are gone."""
        return self.filled


@dataclass(frozen=True, slots=True)
class IndexJob:
    """A claimed job: bring the index to the row's current state.

    ``memory`` is the row as of the claim, or None when it is deleted and must leave the index.
    """

    tenant: Tenant
    memory_id: str
    version: int
    attempts: int
    memory: Memory | None
    vectors: StoredVectors | None
    keyword_text: str
    lease: str = ""

    def with_vectors(self, vectors: StoredVectors | None) -> IndexJob:
        """Return the job with the vectors that were made for it."""
        return replace(self, vectors=vectors)


@dataclass(frozen=True, slots=True)
class IndexLag:
    """How far the index is behind: rows waiting, age of the oldest in seconds, poisoned rows."""

    rows: int
    oldest_s: float
    poisoned: int


class IndexQueue(Protocol):
    """State-based index jobs, one a memory, claimed under a lease with per-memory exclusion."""

    async def claim(self, *, limit: int, lease_s: float, profile: str = "") -> list[IndexJob]:
        """Claim the oldest due jobs of any tenant; no memory is ever claimed twice at a time.

        Jobs bring the vectors of ``profile`` that their version already has.
        """
        ...

    async def put_vectors(self, profile: str, rows: Sequence[tuple[IndexJob, StoredVectors]]) -> None:
        """Keep the vectors of the claimed versions beside the rows."""
        ...

    async def settle(self, jobs: Sequence[IndexJob], collection: Collection | None) -> None:
        """Mark the claimed versions as indexed; a row that moved on meanwhile keeps its job."""
        ...

    async def postpone(self, jobs: Sequence[IndexJob], reason: str, *, counts: bool) -> None:
        """Give jobs back with backoff; ``counts`` is False while a whole store is away."""
        ...

    async def lag(self, tenant: Tenant | None = None) -> IndexLag:
        """Read how far the index is behind."""
        ...

    async def active_collection(self, tenant: Tenant, profile: str, dimension: int) -> Collection:
        """Read which collection a tenant's memories are in, creating its entry if needed."""
        ...

    async def collections(self) -> list[Collection]:
        """Read all active collections."""
        ...

    async def new_epoch(self, collection: Collection) -> Collection:
        """Declare a collection lost: its rows count as un-indexed and are queued again.

        Raises CollectionLostError when another collection has taken its place.
        """
        ...


# --- the index -----------------------------------------------------------------------------------


class CollectionLostError(Exception):
    """The collection that was asked for is gone from the index, and all its rows with it.

    Whoever meets this calls :meth:`VectorIndex.ensure`, and :meth:`IndexQueue.new_epoch` when that says so.
    """


class RowsRefusedError(Exception):
    """The index can never take these rows; the call may be repeated without them.

    ``reasons`` maps (tenant name, memory id) to what is wrong.  Where the engine did not say which row it
    refuses, all rows it was given together are named.
    """

    def __init__(self, reasons: Mapping[tuple[str, str], str]) -> None:
        super().__init__(f"{len(reasons)} rows refused: {next(iter(reasons.values()), '')}")
        self.reasons = dict(reasons)


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A row of the index; its primary key there is ``tenant|id``.

    ``dense`` float32 (d,) of the collection's dimension, finite, unit norm.
    """

    tenant: Tenant
    memory: Memory
    version: int
    dense: NDArray[np.float32]
    keyword_text: str


@dataclass(frozen=True, slots=True)
class IndexHit:
    """What the index proposes: an id and the leg's raw score; whatever version it holds, the truth decides."""

    memory_id: str
    score: float


@dataclass(frozen=True, slots=True)
class IndexSearch:
    """Answers of the two legs, best first, ties by id; a leg that failed or was not asked for is None.

    ``failures`` says of a failed leg whether it was ``late``, ``unavailable`` or ``refused``.  ``exact`` is
    False when the index let through rows that the filter does not match (payload conditions), so that fewer
    than ``limit`` may be left after the re-check.
    """

    dense: tuple[IndexHit, ...] | None
    keyword: tuple[IndexHit, ...] | None
    failures: Mapping[str, str] = field(default_factory=dict)
    exact: bool = True


class VectorIndex(Protocol):
    """The derived index: dense and BM25 search over memories, rebuildable at any time.

    Every method raises ComponentUnavailableError(component="milvus") when the index does not answer in time.
    Those that take a collection raise CollectionLostError when this epoch of it is not there.
    """

    async def ensure(self, collection: Collection) -> bool:
        """Make the collection exist and be loaded; True when what this epoch had indexed is gone.

        After True call ``new_epoch`` and ``ensure`` the epoch it returns.  A lost collection is made anew
        under the epoch after the one asked for, so a crash between the two calls hides nothing.
        Older epochs of the same name are dropped.
        """
        ...

    async def upsert(self, collection: Collection, rows: Sequence[IndexRow]) -> None:
        """Write rows; of several with one key the highest version counts.

        Calls for one collection run one after another.  An upsert that was not acknowledged may have removed
        the rows it was to replace: repeat it, and before rewriting a row that counts as indexed, un-index it.
        Raises RowsRefusedError, with nothing written when a row's vector is at fault.
        """
        ...

    async def remove(self, collection: Collection, keys: Sequence[tuple[Tenant, str]]) -> None:
        """Delete rows by (tenant, id); absent ones are fine."""
        ...

    async def search(
        self,
        tenant: Tenant,
        collection: Collection,
        filter: Filter,
        *,
        dense: NDArray[np.float32] | None,
        keyword_text: str | None,
        ids: Sequence[str] | None = None,
        limit: int,
        deadline_s: float,
    ) -> IndexSearch:
        """Search both legs in parallel, pre-filtered by tenant and filter (payload conditions aside).

        With ``ids`` only these memories are searched.  A leg that is late or refused is named in
        ``failures``; when no leg that was asked for answers, ComponentUnavailableError is raised.
        """
        ...

    async def versions(self, collection: Collection, *, after_key: str, limit: int) -> list[tuple[str, str, int]]:
        """Read (tenant name, memory id, version) of all rows, for reconciliation.

        In the order of ``tenant|id`` by bytes (``COLLATE "C"``), starting behind ``after_key``; "" starts
        at the beginning.
        """
        ...

    async def count(self, collection: Collection) -> int:
        """Count the rows of a collection, whether the truth knows them or not."""
        ...

    async def drop(self, collection_name: str) -> None:
        """Delete a collection with all its epochs."""
        ...

    async def probe(self) -> None:
        """Answer, or raise ComponentUnavailableError."""
        ...


# --- the cache -----------------------------------------------------------------------------------


class Cache(Protocol):
    """A cache that may vanish at any time; errors become misses, never failures."""

    async def get_embeddings(self, content_keys: Sequence[bytes]) -> list[bytes | None]:
        """Read embeddings by content key; a value bound to another key is a miss."""
        ...

    async def put_embeddings(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep embeddings by content key."""
        ...

    async def get_memory(self, tenant: Tenant, target: Target) -> Memory | None:
        """Read a recent memory, for answers while the truth is down."""
        ...

    async def put_memories(self, tenant: Tenant, memories: Sequence[Memory]) -> None:
        """Keep memories unless a newer version or tombstone is there (compare and set)."""
        ...

    async def put_tombstones(self, tenant: Tenant, versions: Mapping[str, int]) -> None:
        """Mark memories as deleted as of a version, so that no late value revives them.

        A memory of a higher version lives again.  While the cache has not taken a tombstone, this process
        answers no memory from it.
        """
        ...

    async def erase(self, tenant: Tenant) -> int:
        """Delete all that is kept of a tenant and return how many entries.

        The one call that fails when the cache is away, with ComponentUnavailableError.  Embeddings belong to
        contents, not to tenants; they expire.
        """
        ...

    async def probe(self) -> None:
        """Answer, or raise ComponentUnavailableError."""
        ...


# --- identity ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant as the registry knows it."""

    name: str
    state: str
    display_name: str
    created_at: datetime
    dedicated: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    scorer: str = ""
    """Name of the strategy that ranks its recalls; empty for the built-in one."""
    recall_weights: Mapping[str, float] = field(default_factory=dict)
    """Weights that take the place of a preset's."""
    suspend_cause: str = ""
    updated_at: datetime | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class TenantChange:
    """What to change about a tenant; None stays as it is."""

    display_name: str | None = None
    labels: Mapping[str, str] | None = None
    scorer: str | None = None
    recall_weights: Mapping[str, float] | None = None
    state: str | None = None
    suspend_cause: str | None = None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key without its secret; ``tenants`` of ("*",) with scope act-as means any."""

    key_id: str
    tenants: tuple[str, ...]
    scopes: tuple[str, ...]
    label: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    secret_hash: bytes = b""


class Registry(Protocol):
    """Tenants and API keys; the only port without a tenant, used by admin services and authentication."""

    async def create_tenant(
        self,
        name: str,
        display_name: str,
        *,
        dedicated: bool,
        settings: TenantChange | None = None,
        request_id: str = "",
    ) -> TenantRecord:
        """Create a tenant with some settings; raises TenantExistsError, unless the same request made it."""
        ...

    async def change_tenant(self, name: str, change: TenantChange, if_match: int | None = None) -> TenantRecord | None:
        """Change a tenant; None when there is none, or another version of it than ``if_match``."""
        ...

    async def get_tenant(self, name: str) -> TenantRecord | None:
        """Read a tenant."""
        ...

    async def list_tenants(self, *, after: str, limit: int) -> list[TenantRecord]:
        """Read tenants in name order."""
        ...

    async def put_key(self, key: KeyRecord) -> None:
        """Add a key; an identical id replaces it."""
        ...

    async def get_key(self, key_id: str) -> KeyRecord | None:
        """Read a key by its id."""
        ...

    async def list_keys(self, tenant_name: str, *, after: str, limit: int) -> list[KeyRecord]:
        """Read the keys of a tenant."""
        ...

    async def revoke_key(self, key_id: str) -> KeyRecord | None:
        """Revoke a key now; None when there is none."""
        ...


# --- time ----------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time as a port, so that it is virtual in tests."""

    def now(self) -> datetime:
        """The wall-clock time, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


# --- links ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expansion:
    """Steps on from some memories, those of each strongest first; ``cut`` when there are more than were asked for."""

    steps: tuple[Step, ...]
    cut: bool = False
    links: tuple[Link, ...] = ()
    """The links of the steps, in their order, if they were asked for."""


class GraphStore(Protocol):
    """Links in the truth, in reach of neighbourhoods only; no method reads a whole graph.

    A link is seen while both its ends live and now lies within its validity.  Strengths are what is left of them.
    """

    async def write(
        self,
        tenant: Tenant,
        commands: Sequence[LinkCommand],
        *,
        origin: Origin | None = None,
        deadline_s: float | None = None,
    ) -> list[LinkWritten | SomaError]:
        """Commit commands in order; each answers what it did or why it was refused.

        Links, changelog, revision and idempotency records are one transaction.  Refusals are MemoryNotFoundError
        with ``field`` source or target, FieldViolationError for a self-link, LinkNotFoundError,
        VersionMismatchError, RequestIdReusedError.  Raises as :meth:`Journal.write` does.
        """
        ...

    async def answered(self, tenant: Tenant, request_ids: Sequence[str]) -> set[str]:
        """Return those request ids that have been answered before, by this store or the journal."""
        ...

    async def resolve(self, tenant: Tenant, targets: Sequence[Target]) -> list[str | None]:
        """Read the ids of living memories in the order of the targets; None where there is none."""
        ...

    async def expand(
        self,
        tenant: Tenant,
        memory_ids: Sequence[str],
        reach: Reach,
        *,
        each: int,
        limit: int,
        whole: bool = False,
        deadline_s: float | None = None,
    ) -> Expansion:
        """Read the strongest steps on from each memory: at most ``each`` a memory and ``limit`` in all.

        Memories come in the order given, so that those first are served first; ones that do not live have none.
        With ``whole`` the links come too.
        """
        ...

    async def among(
        self, tenant: Tenant, memory_ids: Sequence[str], reach: Reach, *, limit: int, deadline_s: float | None = None
    ) -> Expansion:
        """Read the links that lead from one of these to another, walked from their source."""
        ...

    async def referring(self, tenant: Tenant, memory_ids: Sequence[str]) -> set[str]:
        """Return those memories that have links which their payloads made."""
        ...

    async def links(self, tenant: Tenant, keys: Sequence[LinkKey]) -> list[Link | None]:
        """Read links in the order of the keys; None where there is none."""
        ...

    async def page(
        self, tenant: Tenant, memory_id: str, reach: Reach, *, at: datetime, after: Link | None, limit: int
    ) -> list[Link]:
        """Read links of a memory, strongest at the time ``at`` first, behind ``after``; ties as :func:`place_of`."""
        ...
