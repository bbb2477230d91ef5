"""Working memory: what an agent has in mind during a session; spoken to the brain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import grpc

from rpckit.metadata import new_request_id
from soma.memory.v1 import working_memory_service_pb2 as pb
from soma.memory.v1 import working_memory_service_pb2_grpc as rpc
from soma_client.calling import Calls
from soma_contract.errors import UnavailableError


class WorkingCalls:
    """WorkingMemoryService in the contract's own messages, for the client's session unless another is named."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._working = rpc.WorkingMemoryServiceStub(calls.channel)

    async def observe(self, *observations: pb.Observation) -> list[pb.ObserveResponse]:
        """Have things observed, in this order; the answers are ``observed`` or ``refused``, one each.

        Sequences are given here, after those the session has.  Raises UnavailableError when the brain drains: what
        has no answer then was perhaps observed, and an ``item_id`` makes repeating it harmless.
        """
        call = self._working.Observe(metadata=self._calls.metadata())
        try:
            opening = pb.OpenSession(session_id=self._calls.identity.session)
            await call.write(pb.ObserveRequest(opening=opening))
            first = await call.read()
            if not isinstance(first, pb.ObserveResponse) or not first.HasField("opened"):
                raise UnavailableError("the brain is going down; try again")
            answers: list[pb.ObserveResponse] = []
            for sequence, observation in enumerate(observations, first.opened.sequence + 1):
                numbered = pb.Observation()
                numbered.CopyFrom(observation)
                numbered.sequence = sequence
                await call.write(pb.ObserveRequest(observation=numbered))
                answer = await call.read()
                if not isinstance(answer, pb.ObserveResponse) or answer.HasField("drain"):
                    raise UnavailableError("the brain is going down; try again what has no answer")
                answers.append(answer)
            await call.done_writing()
            return answers
        except grpc.aio.AioRpcError as error:
            raise await self._calls.fed_stream_error(error, self._working.Observe) from error
        finally:
            call.cancel()

    async def items(
        self, *, kinds: Iterable[pb.ItemKind.ValueType] = (), min_salience: float | None = None
    ) -> AsyncIterator[pb.WorkingItem]:
        """Iterate over what the session holds, most salient first."""
        request = pb.ListItemsRequest(kinds=kinds, min_salience=min_salience)
        while True:
            page = await self._calls.unary(self._working.ListItems, request)
            for item in page.items:
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def tick(self) -> pb.TickResponse:
        """Let salience decay and promotion be decided now, instead of within the second."""
        return await self._calls.unary(self._working.Tick, pb.TickRequest())

    async def promote(self, *item_ids: str, request_id: str = "") -> pb.PromoteItemsResponse:
        """Make long-term memories of items, however salient they are."""
        request_id = request_id or new_request_id()
        request = pb.PromoteItemsRequest(
            item_ids=item_ids, namespace_id=self._calls.identity.namespace, request_id=request_id
        )
        return await self._calls.unary(self._working.PromoteItems, request, None, request_id)

    async def close(self, *, promote_min_salience: float | None = None) -> pb.CloseSessionResponse:
        """End the session; items at least so salient are promoted first."""
        return await self._calls.unary(
            self._working.CloseSession, pb.CloseSessionRequest(promote_min_salience=promote_min_salience)
        )
