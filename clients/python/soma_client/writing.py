"""The calls of MemoryService that change something."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import replace

import orjson
from google.protobuf.field_mask_pb2 import FieldMask

from rpckit.metadata import new_request_id
from soma.memory.v1 import memory_service_pb2 as pb
from soma_client.answers import Forgotten, ForgottenMatching, Remembered, read_durability, read_remembered
from soma_client.bound import Bound
from soma_client.naming import Named, filter_in
from soma_client.writing_many import RememberStream, Writable
from soma_contract.convert.filters import filter_to_pb
from soma_contract.convert.memories import MASKABLE, memory_to_pb, remember_to_pb, target_to_pb
from soma_contract.errors import UnavailableError
from soma_contract.filters import Filter
from soma_contract.memory import DEFAULT_NAMESPACE, Kind, Memory, Remember, View

IN_FLIGHT = 64

_WIRE_NAMES = {domain: wire for wire, domain in MASKABLE.items()}


class WritingCalls(Bound):
    """Remembering, changing and forgetting; every write carries a request id, so a repeated call stores once."""

    async def remember(
        self,
        memory: Writable,
        *,
        key: str = "",
        kind: Kind | None = None,
        tags: Iterable[str] = (),
        actor: str = "",
        payload: Mapping[str, object] | None = None,
        ttl_s: float | None = None,
        if_match: int | None = None,
        if_absent: bool = False,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> Remembered:
        """Store a text, a memory or a whole command; one of the same id or key is replaced by a new version.

        The answer comes after the write is on disk. ``request_id`` names this write: the same one again, within 30
        days, gives the first answer.
        """
        command = self.command(memory)
        changes = {
            name: value
            for name, value in (("key", key), ("kind", kind), ("tags", tuple(tags)), ("actor", actor))
            if value
        }
        if payload is not None:
            changes["payload_json"] = orjson.dumps(payload).decode()
        command = replace(
            command,
            memory=replace(command.memory, **changes),  # type: ignore[arg-type] # the names are Memory's own
            ttl_s=command.ttl_s if ttl_s is None else ttl_s,
            if_match=command.if_match if if_match is None else if_match,
            if_absent=command.if_absent or if_absent,
            request_id=request_id or command.request_id,
        )
        answer = await self._calls.unary(self._memory.Remember, remember_to_pb(command), timeout_s, command.request_id)
        return read_remembered(answer)

    def remember_many(
        self, items: Iterable[Writable] | AsyncIterable[Writable], *, in_flight: int = IN_FLIGHT
    ) -> RememberStream:
        """Store many over one stream, which is taken up again where it breaks; iterate over the outcomes."""
        return RememberStream(self._calls, items, self.command, in_flight)

    def command(self, item: Writable) -> Remember:
        """The command that an item stands for, with a request id and in this client's namespace."""
        return command_of(item, self.namespace)

    async def update(
        self,
        memory: Named | None = None,
        /,
        *,
        key: str = "",
        ttl_s: float | None = None,
        if_match: int | None = None,
        request_id: str = "",
        timeout_s: float | None = None,
        **fields: object,
    ) -> Remembered:
        """Replace fields of a memory, named as in Memory: ``update(id, importance=0.9, tags=("a",))``."""
        request_id = request_id or new_request_id()
        request = pb.UpdateRequest(
            target=target_to_pb(self._target(memory, key=key)),
            memory=memory_to_pb(Memory(**fields), View.FULL),  # type: ignore[arg-type] # the names are Memory's own
            update_mask=FieldMask(paths=[_WIRE_NAMES.get(name, name) for name in fields]),
            if_match=if_match,
            request_id=request_id,
        )
        if ttl_s is not None:
            request.ttl.FromNanoseconds(round(ttl_s * 1e9))
        answer = await self._calls.unary(self._memory.Update, request, timeout_s, request_id)
        return read_remembered(answer)

    async def forget(
        self,
        memory: Named | None = None,
        *,
        key: str = "",
        coordinate: str | Sequence[float] | None = None,
        if_match: int | None = None,
        allow_missing: bool = False,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> Forgotten:
        """Delete a memory with its links; raises MemoryNotFoundError unless ``allow_missing``."""
        request_id = request_id or new_request_id()
        request = pb.ForgetRequest(
            target=target_to_pb(self._target(memory, key=key, coordinate=coordinate)),
            if_match=if_match,
            allow_missing=allow_missing,
            request_id=request_id,
        )
        answer = await self._calls.unary(self._memory.Forget, request, timeout_s, request_id)
        return Forgotten(read_durability(answer.durability), answer.revision)

    async def forget_matching(
        self,
        filter: Filter,
        *,
        dry_run: bool = False,
        expected_count: int | None = None,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> ForgottenMatching:
        """Delete everything that matches; ``expected_count`` refuses unless exactly so many match."""
        request_id = request_id or new_request_id()
        request = pb.ForgetMatchingRequest(
            filter=filter_to_pb(filter_in(filter, self.namespace)),
            dry_run=dry_run,
            expected_count=expected_count,
            request_id=request_id,
        )
        async for frame in self._calls.stream(self._memory.ForgetMatching, request, timeout_s, request_id):
            if frame.WhichOneof("frame") == "total":
                return ForgottenMatching(frame.total.matched, frame.total.deleted, frame.total.revision)
        raise UnavailableError("the answer broke off before its total; what was deleted so far stays deleted")


def command_of(item: Writable, namespace: str) -> Remember:
    """The command that an item stands for; "default" as its namespace means the one given here."""
    if isinstance(item, str):
        item = Memory(text=item)
    if isinstance(item, Memory):
        item = Remember(item)
    memory = item.memory
    if memory.namespace in ("", DEFAULT_NAMESPACE):
        memory = replace(memory, namespace=namespace)
    return replace(item, memory=memory, request_id=item.request_id or new_request_id())
