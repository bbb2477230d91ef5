"""Every unary call ends: at its caller's deadline, or at ours if it has none."""

from __future__ import annotations

from dataclasses import dataclass

from rpckit.layer import Method, Wire
from soma_contract.errors import BudgetSpentError


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long calls may run."""

    unary_s: float = 10.0
    """Imposed on unary calls without a deadline. Streams without one may run for ever."""
    margin_s: float = 0.05
    """How much later than a caller's own deadline the handler is cancelled by us, should grpc itself not have done it.
    It keeps our timer from racing grpc's."""

    def remaining_s(self, method: Method, wire: Wire) -> float | None:
        """How long this call has; None for ever."""
        remaining: float | None = wire.time_remaining()
        if remaining is None and not method.is_stream:
            return self.unary_s
        return remaining

    def cancel_after_s(self, remaining_s: float | None) -> float | None:
        """When to cancel the handler; raises BudgetSpentError if the time is up before the call has begun."""
        if remaining_s is None:
            return None
        if remaining_s <= 0:
            raise BudgetSpentError(stage="queue")
        return remaining_s + self.margin_s
