"""Whatever is done to both journals, they answer and hold the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_server.ports import Journal, Listing
from soma_contract.errors import SomaError
from soma_contract.filters import EVERYTHING
from soma_contract.memory import Command, Forget, Memory, Origin, Remember, Target, Update, Written
from soma_contract.tenant import Tenant, admin_tenant
from tests.conformance.truth_stores import (
    TruthInMemory,
    TruthInPostgres,
    remember,
    truth_database,
    truth_in_postgres,
)

__all__ = ["truth_database", "truth_in_postgres"]

pytestmark = pytest.mark.stores

KEYS = ("", "a", "b", "c")
# Two made-up ids, and two that no server makes up.
IDS = ("", "01900000-0000-7000-8000-000000000001", "00000000-0000-4000-8000-000000000002")
NAMESPACES = ("default", "other")
CALM = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _targets() -> st.SearchStrategy[Target]:
    by_key = st.builds(Target, namespace=st.sampled_from(NAMESPACES), key=st.sampled_from(KEYS[1:]))
    return by_key | st.builds(Target, memory_id=st.sampled_from(IDS[1:]))


def _remember(
    memory_id: str, namespace: str, key: str, text: str, if_match: int | None, if_absent: bool, request_id: str
) -> Remember:
    # A memory with neither id nor key gets an id by chance, which no two journals share.
    key = key or ("" if memory_id else "d")
    command = remember(text, memory_id=memory_id, namespace=namespace, key=key, request_id=request_id)
    return replace(command, if_match=None if if_absent else if_match, if_absent=if_absent)


_VERSIONS = st.sampled_from([None, None, None, 1, 2, 3])
_REQUEST_IDS = st.sampled_from(["", "", "r-1", "r-2", "r-3"])
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        _remember,
        st.sampled_from(IDS),
        st.sampled_from(NAMESPACES),
        st.sampled_from(KEYS),
        st.sampled_from(["tea", "coffee"]),
        _VERSIONS,
        st.sampled_from([False, False, True]),
        _REQUEST_IDS,
    ),
    st.builds(
        Update,
        _targets(),
        st.builds(Memory, key=st.sampled_from(KEYS), importance=st.sampled_from([None, 0.5]), text=st.just("cake")),
        st.sampled_from([("key",), ("importance",), ("text", "importance"), ("key", "text")]),
        if_match=_VERSIONS,
        request_id=_REQUEST_IDS,
    ),
    st.builds(Forget, _targets(), if_match=_VERSIONS, allow_missing=st.booleans(), request_id=_REQUEST_IDS),
)
ORIGINS = st.none() | st.builds(
    Origin,
    st.sampled_from(["brain-a", "brain-b"]),
    st.integers(0, 3).map(lambda s: datetime(2025, 1, 1, 0, 0, s, tzinfo=UTC)),
)
CALLS = st.lists(st.tuples(st.lists(COMMANDS, min_size=1, max_size=5), ORIGINS, st.booleans()), min_size=1, max_size=8)


def told(answer: Written | SomaError) -> object:
    """An answer without what two stores cannot share: the time."""
    if isinstance(answer, SomaError):
        return type(answer).__name__, sorted(answer.metadata.items())
    return replace(answer, memory=timeless(answer.memory))


def timeless(memory: Memory | None) -> Memory | None:
    return None if memory is None else replace(memory, created_at=None, updated_at=None)


async def done(
    journal: Journal, tenant: Tenant, calls: Sequence[tuple[list[Command], Origin | None, bool]]
) -> list[object]:
    """What the journal answered to each call, and what it holds afterwards."""
    seen: list[object] = []
    for commands, origin, atomic in calls:
        try:
            answers = await journal.write(tenant, commands, origin=origin, atomic=atomic)
        except SomaError as error:
            seen.append(told(error))
        else:
            seen.append([told(answer) for answer in answers])
    page = await journal.list_memories(tenant, Listing(EVERYTHING, 100))
    for memory in page.memories:
        versions = await journal.history(tenant, memory.memory_id, before_version=None, limit=100)
        seen.append([timeless(version) for version in versions])
        targets = [Target(coordinate=memory.coordinate, namespace=memory.namespace)]
        seen.append([timeless(found) for found in await journal.get(tenant, targets)])
    seen.append(await journal.revision(tenant))
    return seen


_numbers = iter(range(1_000_000))


@CALM
@given(calls=CALLS)
async def test_the_twin_answers_as_postgres_does(
    truth_in_postgres: TruthInPostgres, calls: list[tuple[list[Command], Origin | None, bool]]
) -> None:
    tenant = admin_tenant(f"agree-{next(_numbers)}", reason="tests")
    assert await done(TruthInMemory().journal, tenant, calls) == await done(truth_in_postgres.journal, tenant, calls)


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)


@CALM
@given(
    memory=st.builds(
        Memory,
        namespace=st.just("default"),
        schema_type=_TEXT,
        persona_id=_TEXT,
        text=_TEXT.filter(bool),
        tags=st.lists(_TEXT, max_size=4).map(tuple),
        actor=_TEXT,
        session_id=_TEXT,
        sequence=st.none() | st.integers(-(2**63), 2**63 - 1),
        importance=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        occurred_at=st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
    )
)
async def test_what_was_accepted_is_read_back_to_the_letter(truth_in_postgres: TruthInPostgres, memory: Memory) -> None:
    tenant = admin_tenant("letters", reason="tests")
    fields = {name: getattr(memory, name) for name in Memory.__slots__}
    (answer,) = await truth_in_postgres.journal.write(tenant, [remember(**fields)])
    assert isinstance(answer, Written)
    assert answer.memory is not None
    (found,) = await truth_in_postgres.journal.get(tenant, [Target(memory_id=answer.memory.memory_id)])
    set_here = {"memory_id", "coordinate", "created_at", "updated_at", "version"}
    assert found is not None
    assert {name: value for name, value in fields.items() if name not in set_here} == {
        name: getattr(found, name) for name in fields if name not in set_here
    }
