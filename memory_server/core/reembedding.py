"""The verb *re-embed*: gives tenants' memories vectors of another model while the old ones answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from memory_server.core.embedding import Embedding
from memory_server.core.rebuilding import Copying, Rebuilding, waited
from memory_server.core.reconciling import Checkpoint, Reconciling
from memory_server.domain.index_tasks import IndexTask, Scope, TaskKind
from memory_server.ports import Collection
from rpckit.failpoints import failpoint
from soma_contract.errors import FeatureDisabledError
from soma_contract.tenant import Tenant, admin_tenant

_VECTORS = 2_000
_CACHES_S = 2.0
"""Longer than any server keeps to itself which collection a tenant has."""


@dataclass(frozen=True, slots=True)
class ReEmbedding:
    """Moves tenants from profile to profile: copy with new vectors, switch, clean up behind."""

    copying: Copying
    rebuilding: Rebuilding
    reconciling: Reconciling
    embeddings: dict[str, Embedding]
    """By profile; both the old and the new one must be there, since both are searched meanwhile."""
    on_switched: Callable[[], None] = lambda: None
    hint: Callable[[], None] = lambda: None

    async def run(self, task: IndexTask, checkpoint: Checkpoint) -> IndexTask:
        """Move what a task asks for, from where it was left; vectors made before are not made again."""
        embedding = self.embeddings.get(task.scope.profile)
        if embedding is None:
            raise FeatureDisabledError(feature=f"embedding profile {task.scope.profile}")
        builds = self.copying.builds
        moving = await builds.elsewhere(embedding.profile.key, task.scope.tenant_name)
        for _, profile, _ in moving:
            if profile not in self.embeddings:
                raise FeatureDisabledError(feature=f"embedding profile {profile}")
        fresh = not task.progress
        for tenant, profile, dimension in moving:
            source = await builds.collection(tenant, profile, dimension)
            if fresh:
                # While no task was open, rows of an abandoned move may have been removed as a stranger's.
                await builds.unmark(source, tenant.name)
        task = task.at(phase="copy")
        await checkpoint(task)
        for tenant, profile, dimension in moving:
            source = await builds.collection(tenant, profile, dimension)
            target, task = await self._target(tenant, source, embedding, task, checkpoint)
            task = await self.copying.passes(task, checkpoint, source, target, embedding, tenant.name)
        if moving:
            await waited(self.copying.pace.visible_after_s, task, checkpoint)
        for tenant, profile, dimension in moving:
            task = await self._moved(tenant, profile, dimension, embedding, task, checkpoint)
        return await self._cleaned(task, embedding, checkpoint)

    async def _moved(
        self,
        tenant: Tenant,
        profile: str,
        dimension: int,
        embedding: Embedding,
        task: IndexTask,
        checkpoint: Checkpoint,
    ) -> IndexTask:
        """Copy what came meanwhile and have the tenant searched by the new vectors."""
        builds = self.copying.builds
        while True:
            source = await builds.collection(tenant, profile, dimension)
            target, task = await self._target(tenant, source, embedding, task, checkpoint)
            task = await self.copying.passes(task, checkpoint, source, target, embedding, tenant.name)
            # Noted first: what is moved must be cleaned up behind even if this server dies in between.
            task = task.at(moved=[*dict.fromkeys([*_moves(task), (tenant.name, profile, dimension)])])
            await checkpoint(task)
            failpoint("reembed.filled")
            if await builds.move(tenant, source, target):
                failpoint("reembed.moved")
                self.on_switched()
                self.hint()
                return task

    async def _target(
        self, tenant: Tenant, source: Collection, embedding: Embedding, task: IndexTask, checkpoint: Checkpoint
    ) -> tuple[Collection, IndexTask]:
        """The collection to move to, of a higher epoch than the one to leave: marks compare by it."""
        profile = embedding.profile
        while True:
            target = await self.copying.builds.collection(tenant, profile.key, profile.dimension)
            while await self.copying.index.ensure(target):
                target = await self.copying.queue.new_epoch(target)
            if target.epoch > source.epoch:
                return target, task
            task = await self.rebuilding.anew(target, task, checkpoint)

    async def _cleaned(self, task: IndexTask, embedding: Embedding, checkpoint: Checkpoint) -> IndexTask:
        """Queue what a server moved with old knowledge, then delete rows and vectors of the old profiles."""
        builds, profile = self.copying.builds, embedding.profile
        still = {tenant.name for tenant, _, _ in await builds.elsewhere(profile.key, "")}
        moves = [move for move in _moves(task) if move[0] not in still]
        if not moves:
            return task
        for seconds in (_CACHES_S, self.copying.pace.retire_after_s):
            await waited(seconds, task, checkpoint)
            for name, _, _ in moves:
                tenant = _tenant(name)
                target = await builds.collection(tenant, profile.key, profile.dimension)
                await builds.queue_strays(tenant, target)
            self.hint()
        for name, old, dimension in moves:
            tenant = _tenant(name)
            left = await builds.collection(tenant, old, dimension)
            await self._swept(left, name, task, checkpoint)
            failpoint("reembed.swept")
            while await builds.drop_vectors(tenant, old, _VECTORS):
                await checkpoint(task)
        return task

    async def _swept(self, left: Collection, tenant_name: str, task: IndexTask, checkpoint: Checkpoint) -> None:
        """Remove a tenant's rows from the collection it has left: there they are a stranger's."""
        scope = Scope(TaskKind.RECONCILE, tenant_name, left.name, repair=True)

        async def held(_: IndexTask) -> None:
            await checkpoint(task)

        await self.reconciling.run(replace(task, scope=scope, progress={}), held)


def _moves(task: IndexTask) -> list[tuple[str, str, int]]:
    moves = task.progress.get("moved", [])
    assert isinstance(moves, list)
    return [(str(name), str(profile), int(dimension)) for name, profile, dimension in moves]


def _tenant(name: str) -> Tenant:
    return admin_tenant(name, reason="its memories are embedded with another model")
