"""A write on its way to the long-term memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from soma_contract.errors import Code, SomaError, rebuilt
from soma_contract.tenant import Tenant


class EntryState(IntEnum):
    """Where an entry stands; a delivered one is gone."""

    PENDING = 0
    DEAD = 1
    """On the dead-letter list: refused for good, waiting for an operator."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A write that is to be appended; ids are assigned before, so that a repeated request finds its entry."""

    entry_id: str
    request_id: str
    operation: str
    touched: tuple[str, ...]
    """Every memory id the write changes or needs: a link touches two."""
    payload: bytes
    origin_at: datetime
    fingerprint: bytes = b""
    """What the client sent, without what the brain assigned; empty means operation, touched and payload."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the last attempt failed: enough to raise the error again after a restart."""

    code: Code
    reason: str
    message: str

    @classmethod
    def of(cls, error: SomaError) -> Rejection:
        """Return what is kept of an error."""
        return cls(error.code, error.reason, error.message)

    def error(self) -> SomaError:
        """Return the error again."""
        return rebuilt(self.code, self.reason, self.message)


@dataclass(frozen=True, slots=True)
class Entry:
    """A write in the outbox, without its payload: that stays in the file, encrypted."""

    sequence: int
    tenant: Tenant
    entry_id: str
    request_id: str
    operation: str
    touched: tuple[str, ...]
    origin_at: datetime
    brain_id: str
    epoch: int
    """The tenant's erasure epoch when it was appended; a later erase drops it."""
    size: int
    """Bytes of its payload."""
    digest: bytes
    """Keyed hash of the request, to tell a repetition from a reuse of its id."""
    state: EntryState = EntryState.PENDING
    attempts: int = 0
    """Tries that failed for a reason of its own while others succeeded."""
    rejection: Rejection | None = None
    traceparent: str = ""
    """The W3C trace of the call that wrote it, so that its delivery can be found from there; empty if it had none."""
