"""Every unary call ends: at its caller's deadline, or at ours if it has none."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from rpckit.call import enter_call
from rpckit.interceptors.layer import Call
from soma_contract.errors import BudgetSpentError


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long calls may run."""

    unary_s: float = 10.0
    """Imposed on unary calls without a deadline. Streams without one may run for ever."""
    margin_s: float = 0.05
    """How much later than a caller's own deadline the handler is cancelled by us, should grpc itself not have done it.
    It keeps our timer from racing grpc's."""

    def apply(self, call: Call) -> float | None:
        """Put the deadline into the call's context; returns the seconds until the handler must be cancelled."""
        remaining: float | None = call.wire.time_remaining()
        if remaining is None:
            if call.method.is_stream:
                return None
            remaining, limit = self.unary_s, self.unary_s
        elif remaining <= 0:
            raise BudgetSpentError(stage="queue")
        else:
            limit = remaining + self.margin_s
        call.context = replace(call.context, deadline=time.monotonic() + remaining)
        enter_call(call.context)
        return limit
