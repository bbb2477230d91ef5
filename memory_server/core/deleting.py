"""The verb *forget*, for everything that matches a filter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from memory_server.ports import Journal
from soma_contract.errors import FieldViolationError, SomaError, VersionMismatchError
from soma_contract.filters import AllOf, AnyOf, Filter, LabelField, LabelIn, NoneOf
from soma_contract.memory import Forget, Origin, Target
from soma_contract.tenant import Tenant

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Deleted:
    """Progress: how many matched and were deleted so far; ``final`` on the last."""

    matched: int
    count: int
    revision: int
    final: bool = False


@dataclass(frozen=True, slots=True)
class Deleting:
    """Deletes what matches, in small transactions, so that a cut call has deleted a part and said so."""

    journal: Journal

    async def matching(
        self,
        tenant: Tenant,
        filter: Filter,
        *,
        dry_run: bool,
        expected: int | None,
        origin: Origin | None = None,
    ) -> AsyncIterator[Deleted]:
        """Delete every match, reporting after each chunk.

        Only memories that match when the call starts are deleted.  Raises FieldViolationError for a
        filter without a condition of its own, VersionMismatchError when the count is not as expected.
        """
        if not confines(filter):
            raise FieldViolationError.at("filter", "must confine the deletion: it matches everything")
        ids = await self._all_ids(tenant, filter)
        if expected is not None and len(ids) != expected:
            raise VersionMismatchError(
                "another number of memories matches than expected; list them and call again",
                expected=str(expected),
                actual=str(len(ids)),
            )
        deleted, revision = 0, await self.journal.revision(tenant)
        if not dry_run:
            for start in range(0, len(ids), _CHUNK):
                chunk = [Forget(Target(memory_id=one), allow_missing=True) for one in ids[start : start + _CHUNK]]
                for answer in await self.journal.write(tenant, chunk, origin=origin):
                    if isinstance(answer, SomaError):
                        raise answer
                    deleted += answer.changed
                    revision = max(revision, answer.revision)
                yield Deleted(len(ids), deleted, revision)
        yield Deleted(len(ids), deleted, revision, final=True)

    async def _all_ids(self, tenant: Tenant, filter: Filter) -> list[str]:
        limit = 10_000
        while True:
            ids = await self.journal.matching_ids(tenant, filter, limit)
            if len(ids) < limit:
                return ids
            limit *= 10


def confines(node: Filter) -> bool:
    """Whether a filter has a condition beyond the namespace: one that could fail."""
    match node:
        case AllOf(operands):
            return any(confines(operand) for operand in operands)
        case AnyOf(operands):
            return bool(operands) and all(confines(operand) for operand in operands)
        case NoneOf(operands):
            return bool(operands)
        case LabelIn(LabelField.NAMESPACE, _):
            # Naming a namespace is a choice, but the default one is put in by us.
            return False
        case _:
            return True
