"""What work on the index outlives, and what it does not."""

from __future__ import annotations

import pytest

from memory_server.core.index_jobs import Checkpoint, IndexJobs
from memory_server.domain.index_tasks import IndexTask, Scope, TaskKind, TaskState
from soma_contract.errors import (
    BudgetSpentError,
    ComponentUnavailableError,
    FeatureDisabledError,
    SomaError,
    WriteConflictError,
)
from tests.integration.index.workshop import Workshop

pytestmark = pytest.mark.stores


def failing_once(workshop: Workshop, error: SomaError) -> IndexJobs:
    """Jobs whose work fails the first time, half-way."""
    begun: list[int] = []

    async def work(task: IndexTask, checkpoint: Checkpoint) -> IndexTask:
        begun.append(task.done)
        if len(begun) == 1:
            await checkpoint(task.at(done=7))
            raise error
        return task.at(begun=begun)

    return IndexJobs(workshop.jobs.tasks, {TaskKind.REBUILD: work}, reconcile_every_s=0.0, lease_s=0.2)


@pytest.mark.parametrize(
    "error",
    [WriteConflictError(), BudgetSpentError(stage="postgres"), ComponentUnavailableError(component="milvus")],
    ids=lambda error: error.reason,
)
async def test_work_goes_on_after_a_failure_that_passes(workshop: Workshop, error: SomaError) -> None:
    jobs = failing_once(workshop, error)
    task = await jobs.start(Scope(TaskKind.REBUILD))
    with pytest.raises(type(error)):
        await jobs.step()
    assert TaskState.RUNNING == (await jobs.get(task.task_id)).state
    while (ended := await jobs.get(task.task_id)).state is TaskState.RUNNING:
        await jobs.step()
    assert (TaskState.DONE, "") == (ended.state, ended.reason)


async def test_work_that_is_refused_for_good_has_failed_and_says_why(workshop: Workshop) -> None:
    jobs = failing_once(workshop, FeatureDisabledError(feature="embedding profile other"))
    task = await jobs.start(Scope(TaskKind.REBUILD))
    assert await jobs.step()
    ended = await jobs.get(task.task_id)
    assert (TaskState.FAILED, "FEATURE_DISABLED") == (ended.state, ended.reason)
