"""Errors on the wire: ``SomaError`` ⇄ ``google.rpc.Status`` in the call's trailing metadata.

The one place that knows how large an error may be: C-core starts to lose trailing metadata at random above 8 KiB
(the caller then sees RESOURCE_EXHAUSTED instead of the error), so a status is kept under 4 KiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from rpckit.metadata import REQUEST_ID, RETRY_PUSHBACK, STATUS_DETAILS
from soma_contract.errors import DOMAIN, Code, InternalError, SomaError, Violation, rebuilt

MAX_STATUS_BYTES = 4096
MAX_MESSAGE_BYTES = 1024
"""Of the message, counted as it travels in ``grpc-message``: percent-encoded."""
MAX_METADATA_BYTES = 1024
MAX_VALUE_BYTES = 256
_ENVELOPE_BYTES = 320
"""More than type urls, lengths, domain, retry delay and the count of omitted violations take."""
OMITTED = "violations_omitted"
"""The ``ErrorInfo`` metadata key that says how many violations did not fit."""

_SILENT = (Code.INTERNAL, Code.UNKNOWN, Code.OK)

STATUS_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class ItemError:
    """An error that ends one item of a stream and not the call; what the typed ``ItemError`` message is made of."""

    code: Code
    reason: str
    message: str
    metadata: Mapping[str, str]
    retry_after_s: float | None = None
    violations: tuple[Violation, ...] = ()


class FailedCall(Protocol):
    """What a failed call tells, in both the asyncio and the blocking API of grpc."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def public_error(error: BaseException, request_id: str) -> SomaError:
    """What a caller may know of an exception: a SomaError itself, of anything else the request id only.

    A group of exceptions, as a TaskGroup raises it, speaks with its first SomaError if it holds nothing else.
    """
    if isinstance(error, BaseExceptionGroup):
        leaves = list(_leaves(error))
        if all(isinstance(leaf, SomaError) for leaf in leaves):
            return public_error(leaves[0], request_id)
    if isinstance(error, SomaError) and error.code not in _SILENT:
        return error
    return InternalError(request_id=request_id)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def to_status(error: SomaError) -> status_pb2.Status:
    """The status of an error, under 4 KiB: the last violations go first, and how many went is told."""
    metadata = _bounded(error.metadata)
    retry = error_details_pb2.RetryInfo()
    if error.retry_after_s is not None:
        retry.retry_delay.FromMicroseconds(round(error.retry_after_s * 1e6))
    # The rest is small by its own bounds and leaves more than a third of the room to the violations.
    room = MAX_STATUS_BYTES - _ENVELOPE_BYTES - sum(map(_size, (wire_message(error.message), error.reason)))
    room -= sum(_size(key) + _size(value) + 8 for key, value in metadata.items())
    bad_request = _bad_request(error.violations, room)
    omitted = len(error.violations) - len(bad_request.field_violations)
    if omitted:
        metadata[OMITTED] = str(omitted)
    status = status_pb2.Status(code=int(error.code), message=wire_message(error.message))
    status.details.append(_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)))
    if bad_request.field_violations:
        status.details.append(_packed(bad_request))
    if error.retry_after_s is not None:
        status.details.append(_packed(retry))
    return status


def _bad_request(violations: Iterable[Violation], room: int) -> error_details_pb2.BadRequest:
    bad_request = error_details_pb2.BadRequest()
    for field, description in violations:
        field, description = _cut(field, MAX_VALUE_BYTES), _cut(description, MAX_VALUE_BYTES)
        room -= _size(field) + _size(description) + 10
        if room < 0:
            break
        bad_request.field_violations.add(field=field, description=description)
    return bad_request


def _size(text: str) -> int:
    return len(text.encode())


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    bounded: dict[str, str] = {}
    left = MAX_METADATA_BYTES
    for key, value in metadata.items():
        key, value = _cut(key, 64), _cut(value, MAX_VALUE_BYTES)
        left -= len(key) + len(value.encode()) + 8
        if left < 0:
            break
        bounded[key] = value
    return bounded


def _cut(text: str, limit: int) -> str:
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else raw[: limit - 3].decode("utf-8", "ignore") + "…"


def wire_message(text: str) -> str:
    """The text cut to what may travel in ``grpc-message``, where a byte outside printable ASCII costs three."""
    if len(text) <= MAX_MESSAGE_BYTES // 12:
        return text.encode("utf-8", "replace").decode()
    cost = 0
    for index, character in enumerate(text):
        plain = " " <= character <= "~" and character != "%"
        cost += 1 if plain else 3 * len(character.encode("utf-8", "replace"))
        if cost > MAX_MESSAGE_BYTES - 9:
            return text[:index].encode("utf-8", "replace").decode() + "…"
    return text.encode("utf-8", "replace").decode()


def trailers(
    error: SomaError, request_id: str, remaining_s: float | None = None
) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata of a failed call: details, request id and, where waiting helps, how long.

    A wait beyond ``remaining_s``, what is left of the caller's deadline, is sent as "do not retry": a channel told to
    wait longer than its call may last would report a bare DEADLINE_EXCEEDED instead of this error.
    """
    pairs: list[tuple[str, str | bytes]] = [
        (REQUEST_ID, request_id),
        (STATUS_DETAILS, to_status(error).SerializeToString()),
    ]
    if error.retry_after_s is not None:
        in_time = remaining_s is None or error.retry_after_s < remaining_s
        pairs.append((RETRY_PUSHBACK, str(max(0, round(error.retry_after_s * 1000))) if in_time else "-1"))
    return tuple(pairs)


def from_status(status: status_pb2.Status) -> SomaError:
    """The error that a status tells of; details that are not ours are left aside."""
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry_after_s: float | None = None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            detail.Unpack(bad_request)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToMicroseconds() / 1e6
    ours = info.domain == DOMAIN
    return rebuilt(
        Code(status.code) if status.code in Code._value2member_map_ else Code.UNKNOWN,
        info.reason if ours else "",
        status.message,
        metadata=info.metadata if ours else {},
        retry_after_s=retry_after_s,
        violations=[Violation(each.field, each.description) for each in bad_request.field_violations],
    )


def error_from_rpc(failed: FailedCall) -> SomaError:
    """The error of a failed call, seen by its caller.

    Takes a ``grpc.aio.AioRpcError`` or a blocking call's error. Without our details (the connection broke, a proxy
    answered) the class is the family of the code and the reason is empty.
    """
    for key, value in failed.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
                if status.code == failed.code().value[0]:
                    return from_status(status)
            except DecodeError:
                break
    return rebuilt(Code(failed.code().value[0]), "", failed.details() or failed.code().value[1])


def item_error(error: BaseException, request_id: str) -> ItemError:
    """The error of one item of a stream, with nothing in it that a call's error would not show either."""
    shown = public_error(error, request_id)
    status = to_status(shown)  # for its bounds
    bounded = from_status(status)
    return ItemError(
        shown.code, shown.reason, bounded.message, bounded.metadata, bounded.retry_after_s, bounded.violations
    )


def error_from_item(item: ItemError) -> SomaError:
    """The error an item was refused with, seen by the client."""
    return rebuilt(
        item.code,
        item.reason,
        item.message,
        metadata=item.metadata,
        retry_after_s=item.retry_after_s,
        violations=item.violations,
    )
