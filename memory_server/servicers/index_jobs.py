"""Jobs of the index between the contract and the domain: scopes, states, reports and pages."""

from __future__ import annotations

import json
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from datetime import UTC, datetime

from memory_server.domain.index_tasks import (
    IndexTask,
    PoisonedRow,
    Scope,
    TaskKind,
    TaskState,
)
from soma.admin.v1 import operator_service_pb2 as pb
from soma_contract.convert.item_errors import item_error_to_pb
from soma_contract.convert.memories import timestamp
from soma_contract.errors import InternalError, PageTokenInvalidError, from_reason

_KINDS = {
    TaskKind.REBUILD: pb.INDEX_JOB_KIND_REBUILD,
    TaskKind.RE_EMBED: pb.INDEX_JOB_KIND_RE_EMBED,
    TaskKind.RECONCILE: pb.INDEX_JOB_KIND_RECONCILE,
}
_STATES = {
    TaskState.WAITING: pb.INDEX_JOB_STATE_WAITING,
    TaskState.RUNNING: pb.INDEX_JOB_STATE_RUNNING,
    TaskState.DONE: pb.INDEX_JOB_STATE_DONE,
    TaskState.FAILED: pb.INDEX_JOB_STATE_FAILED,
}
STATES = {wire: state for state, wire in _STATES.items()}


def task_to_pb(task: IndexTask) -> pb.IndexJob:
    """Write a task as the contract's index job."""
    wire = pb.IndexJob(
        job_id=task.task_id,
        kind=_KINDS[task.scope.kind],
        state=_STATES[task.state],
        tenant=task.scope.tenant_name,
        done=task.done,
        total=task.total,
        create_time=timestamp(task.created_at),
        end_time=timestamp(task.ended_at),
    )
    if task.state is TaskState.FAILED:
        refusal = (from_reason(task.reason) or InternalError)(task.message)
        wire.error.CopyFrom(item_error_to_pb(refusal))
    if task.scope.kind is TaskKind.RECONCILE:
        wire.report.CopyFrom(report_to_pb(task))
    if task.scope.kind is TaskKind.RE_EMBED:
        wire.embedding.profile = task.scope.profile
        wire.embedding.dimension = task.scope.dimension
    return wire


def report_to_pb(task: IndexTask) -> pb.ReconcileReport:
    """Write what a comparison has found so far."""
    found = task.differences
    return pb.ReconcileReport(
        compared=found.compared,
        missing=found.missing,
        outdated=found.outdated,
        orphaned=found.orphaned,
        repaired=found.repaired,
        start_time=timestamp(task.created_at),
        end_time=timestamp(task.ended_at),
    )


def poisoned_to_pb(row: PoisonedRow) -> pb.PoisonedRow:
    """Write a memory that cannot be indexed."""
    return pb.PoisonedRow(
        tenant=row.tenant_name,
        memory_id=row.memory_id,
        version=row.version,
        attempts=row.attempts,
        last_error=row.reason,
        retry_time=timestamp(row.retry_at),
    )


def tasks_token(last: IndexTask) -> str:
    """The token of the page behind a task."""
    return _token([last.created_at.isoformat(), last.task_id])


def task_behind(token: str) -> IndexTask | None:
    """Where a page of tasks starts; None is the beginning.  Raises PageTokenInvalidError."""
    if not token:
        return None
    created, task_id = _read(token, 2)
    return IndexTask(task_id, Scope(TaskKind.RECONCILE), TaskState.DONE, _moment(created))


def poisoned_token(last: PoisonedRow) -> str:
    """The token of the page behind a row."""
    return _token([last.queued_at.isoformat(), last.tenant_name, last.memory_id])


def poisoned_behind(token: str) -> PoisonedRow | None:
    """Where a page of poisoned rows starts; None is the beginning.  Raises PageTokenInvalidError."""
    if not token:
        return None
    queued, tenant_name, memory_id = _read(token, 3)
    return PoisonedRow(tenant_name, memory_id, 0, 0, "", None, _moment(queued))


def _token(parts: list[str]) -> str:
    return urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def _read(token: str, length: int) -> list[str]:
    try:
        parts = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, Base64Error):
        raise PageTokenInvalidError from None
    if not isinstance(parts, list) or len(parts) != length or not all(isinstance(part, str) for part in parts):
        raise PageTokenInvalidError
    try:
        # The last part is an id; anything else must not reach the database as one.
        return [*parts[:-1], str(uuid.UUID(parts[-1]))]
    except ValueError:
        raise PageTokenInvalidError from None


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise PageTokenInvalidError from None
