"""Contexts: what an agent pastes into its prompt; spoken to the brain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from rpckit.metadata import new_request_id
from soma.memory.v1 import context_service_pb2 as pb
from soma.memory.v1 import context_service_pb2_grpc as rpc
from soma_client.calling import Calls


class ContextCalls:
    """ContextService in the contract's own messages."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._contexts = rpc.ContextServiceStub(calls.channel)

    async def assemble(
        self,
        text: str,
        *,
        token_budget: int = 0,
        categories: Iterable[pb.ContextCategory] = (),
        reinforce: bool | None = None,
        allow_degraded: bool | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[pb.AssembleResponse]:
        """Search the persona's categories for a conversation: sections as they are ready, then one summary."""
        request_id = new_request_id()
        request = pb.AssembleRequest(
            text=text,
            token_budget=token_budget,
            categories=categories,
            reinforce=reinforce,
            allow_degraded=allow_degraded,
            request_id=request_id,
        )
        async for frame in self._calls.stream(self._contexts.Assemble, request, timeout_s, request_id):
            yield frame
