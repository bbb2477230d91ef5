"""Errors of single items, inside streams and batches."""

from __future__ import annotations

from soma.common.v1 import errors_pb2 as pb
from soma_contract.errors import Code, SomaError, Violation, rebuilt

_PREFIX = "ERROR_REASON_"
_KNOWN = frozenset(pb.ErrorReason.keys())


def item_error_to_pb(error: SomaError) -> pb.ItemError:
    """Write why an item was refused; a reason this contract does not know is left unspecified."""
    name = f"{_PREFIX}{error.reason}"
    wire = pb.ItemError(
        code=int(error.code),
        reason=pb.ErrorReason.Value(name) if name in _KNOWN else pb.ERROR_REASON_UNSPECIFIED,
        message=error.message,
        metadata=error.metadata,
        violations=[
            pb.FieldViolation(field_path=violation.field, description=violation.description)
            for violation in error.violations
        ],
    )
    if error.retry_after_s is not None:
        wire.retry_after.FromNanoseconds(int(error.retry_after_s * 1e9))
    return wire


def item_error_from_pb(wire: pb.ItemError) -> SomaError:
    """Read why an item was refused."""
    return rebuilt(
        Code(wire.code),
        pb.ErrorReason.Name(wire.reason).removeprefix(_PREFIX) if wire.reason else "",
        wire.message,
        metadata=dict(wire.metadata),
        retry_after_s=wire.retry_after.ToNanoseconds() / 1e9 if wire.HasField("retry_after") else None,
        violations=[Violation(violation.field_path, violation.description) for violation in wire.violations],
    )
