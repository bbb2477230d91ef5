"""The filter compiler: syntax tree in, Milvus expression out.

The expression lets through every memory of the tenant that the filter matches.  It lets through more
only for conditions that the index cannot decide (payload paths), and then says so with ``exact`` False.

What the embedded engine cannot do shapes the code: it has no ``not``, so negation is pushed down to the
leaves; it has no literal for true or false, so constants are folded away; it refuses trees deeper than 50,
so chains are built balanced.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import count

from memory_server.stores.milvus.quoting import fits, prefix_bounds, quoted, quoted_list
from soma_contract.filters import (
    AllOf,
    AnyOf,
    Filter,
    KeyPrefix,
    LabelField,
    LabelIn,
    NoneOf,
    NumberRange,
    PayloadCompare,
    TagsAll,
    TagsAny,
    TimeRange,
)
from soma_contract.ids import parse_memory_id
from soma_contract.memory import Kind
from soma_contract.tenant import Tenant

ABSENT_TIME = -(2**62)
"""What a time column holds where the memory has no time: before every possible microsecond."""

MAX_ABSENT_TAGS = 32
"""Conditions on absent tags that the embedded engine is asked to decide; each one parses a JSON field."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_KINDS = frozenset(kind.value for kind in Kind)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled filter; ``text`` is None when no row can match.

    ``exact`` is False when rows pass that the filter does not match.
    """

    text: str | None
    exact: bool = True


@dataclass(frozen=True, slots=True)
class _Term:
    text: str
    depth: int = 1


_Part = bool | _Term


def compile_filter(tenant: Tenant, filter: Filter, *, ids: list[str] | None = None, embedded: bool) -> Expression:
    """Compile a filter for one tenant, restricted to ``ids`` where given.

    ``embedded`` chooses what the embedded engine understands.  The tenant always comes first, so no filter
    can widen the search to another tenant.  Raises ValueError for an id that is not a canonical UUID.
    """
    compiler = _Compiler(tenant, embedded)
    part = compiler.compile(filter, True)
    if ids is not None:
        part = _join("and", [part, compiler.ids(ids)])
    if part is False:
        return Expression(None)
    first = f"tenant == {quoted(tenant.name)}"
    text = first if part is True else f"{first} and {part.text}"
    return Expression(text, compiler.exact)


def row_key(tenant_name: str, memory_id: str) -> str:
    """Return a row's primary key, ``tenant|id``; raises ValueError unless the id is a canonical UUID."""
    if parse_memory_id(memory_id) != memory_id:
        raise ValueError(f"{memory_id!r} is not a canonical memory id")
    return f"{tenant_name}|{memory_id}"


def micros(moment: datetime) -> int:
    """Return microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def tag_digest(tag: str) -> str:
    """Return the name under which a tag is found in the JSON field that answers "has not this tag"."""
    return blake2b(tag.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class _Compiler:
    def __init__(self, tenant: Tenant, embedded: bool) -> None:
        self.exact = True
        self._tenant = tenant
        self._embedded = embedded
        self._absent_tags = 0

    def compile(self, node: Filter, wanted: bool) -> _Part:
        """Express that ``matches(node)`` is ``wanted``, letting through more where that is undecidable."""
        match node:
            case AllOf(operands):
                return _join("and" if wanted else "or", [self.compile(o, wanted) for o in operands])
            case AnyOf(operands):
                return _join("or" if wanted else "and", [self.compile(o, wanted) for o in operands])
            case NoneOf(operands):
                return _join("and" if wanted else "or", [self.compile(o, not wanted) for o in operands])
            case LabelIn(LabelField.MEMORY_ID, values):
                return self.ids([value for value in values if _is_canonical(value)], wanted)
            case LabelIn(LabelField.KIND, values):
                return _among("kind", [value for value in values if value in _KINDS], wanted)
            case LabelIn(field, values):
                return _among(field.value, [value for value in values if fits(value)], wanted)
            case KeyPrefix(prefix):
                return _prefix(prefix, wanted)
            case TagsAny(tags):
                return self._tags(tags, wanted, every=False)
            case TagsAll(tags):
                return self._tags(tags, wanted, every=True)
            case TimeRange(field, start, end):
                low = ABSENT_TIME + 1 if start is None else micros(start)
                high = None if end is None else micros(end)
                return _between(field.value, str(low), None if high is None else str(high), "<", wanted)
            case NumberRange():
                return _number(node, wanted)
            case PayloadCompare():
                self.exact = False
                return True

    def ids(self, ids: list[str], wanted: bool = True) -> _Part:
        return _among("pk", [row_key(self._tenant.name, memory_id) for memory_id in ids], wanted)

    def _tags(self, tags: tuple[str, ...], wanted: bool, *, every: bool) -> _Part:
        possible = sorted({tag for tag in tags if fits(tag)})
        if every and len(possible) < len(set(tags)):
            return not wanted
        if not possible:
            return every is wanted
        if wanted:
            return _Term(f"array_contains_{'all' if every else 'any'}(tags, {quoted_list(possible)})")
        if not self._embedded:
            return _Term(f"not array_contains_{'all' if every else 'any'}(tags, {quoted_list(possible)})")
        self._absent_tags += len(possible)
        if self._absent_tags > MAX_ABSENT_TAGS:
            self.exact = False
            return True
        absent: list[_Part] = [_Term(f'tag_digests["{tag_digest(tag)}"] != 1') for tag in possible]
        return _join("or" if every else "and", absent)


def _join(operator: str, parts: list[_Part]) -> _Part:
    """Join parts with ``and`` or ``or``, folding constants, the deepest nearest to the root."""
    absorbing = operator == "or"
    order = count()
    heap: list[tuple[int, int, str]] = []
    for part in parts:
        if isinstance(part, _Term):
            heapq.heappush(heap, (part.depth, next(order), part.text))
        elif part is absorbing:
            return absorbing
    if not heap:
        return not absorbing
    while len(heap) > 1:
        _, _, left = heapq.heappop(heap)
        depth, _, right = heapq.heappop(heap)
        heapq.heappush(heap, (depth + 1, next(order), f"({left} {operator} {right})"))
    depth, _, text = heap[0]
    return _Term(text, depth)


def _among(column: str, values: list[str], wanted: bool) -> _Part:
    if not values:
        return not wanted
    unique = list(dict.fromkeys(values))
    if len(unique) == 1:
        return _Term(f"{column} {'==' if wanted else '!='} {quoted(unique[0])}")
    return _Term(f"{column} {'in' if wanted else 'not in'} {quoted_list(unique)}")


def _prefix(prefix: str, wanted: bool) -> _Part:
    if not prefix:
        return _Term(f'key {"!=" if wanted else "=="} ""')
    if not fits(prefix):
        return not wanted
    low, high = prefix_bounds(prefix)
    return _between("key", low, high, "<", wanted)


def _between(column: str, low: str | None, high: str | None, below: str, wanted: bool) -> _Part:
    """``low`` <= column and column ``below`` high, or its complement."""
    above = {"<": ">=", "<=": ">"}[below]
    parts: list[_Part] = []
    if low is not None:
        parts.append(_Term(f"{column} {'>=' if wanted else '<'} {low}"))
    if high is not None:
        parts.append(_Term(f"{column} {below if wanted else above} {high}"))
    return _join("and" if wanted else "or", parts)


def _number(node: NumberRange, wanted: bool) -> _Part:
    column, low, high = node.field.value, node.low, node.high
    unbounded_low, unbounded_high = low is None or low == -math.inf, high is None or high == math.inf
    if any(bound is not None and math.isnan(bound) for bound in (low, high)):
        return not wanted
    if low == math.inf or high == -math.inf:
        return not wanted  # stored numbers are finite
    present = _Term(f"has_{column} == {'true' if wanted else 'false'}")
    span = _between(
        column,
        None if unbounded_low else _literal(low),
        None if unbounded_high else _literal(high),
        "<=",
        wanted,
    )
    return _join("and" if wanted else "or", [present, span])


def _literal(number: float | None) -> str:
    assert number is not None
    # repr is the shortest text that reads back as the same double.
    return repr(float(number))


def _is_canonical(memory_id: str) -> bool:
    try:
        return parse_memory_id(memory_id) == memory_id
    except ValueError:
        return False
