"""Errors to google.rpc.Status and back."""

from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from rpckit.metadata import RETRY_PUSHBACK
from rpckit.status import (
    MAX_MESSAGE_BYTES,
    MAX_STATUS_BYTES,
    OMITTED,
    error_from_item,
    from_status,
    item_error,
    public_error,
    to_status,
    trailers,
    wire_message,
)
from soma_contract.errors import (
    CircuitBreakerOpenError,
    Code,
    FieldViolationError,
    InternalError,
    MemoryNotFoundError,
    OverloadedError,
    SomaError,
    UnavailableError,
    VersionMismatchError,
    Violation,
    from_reason,
    reasons,
)

ANY_TEXT = st.text(st.characters(), max_size=600)
LONG_TEXT = st.builds(lambda text, times: text * times, ANY_TEXT, st.sampled_from([1, 1, 40]))


@given(
    message=LONG_TEXT,
    violations=st.lists(st.builds(Violation, LONG_TEXT, LONG_TEXT), max_size=60),
    metadata=st.dictionaries(LONG_TEXT, LONG_TEXT, max_size=30),
    retry_after_s=st.one_of(st.none(), st.floats(0, 1e6)),
)
@settings(deadline=None)
def test_a_status_is_under_4_kib_whatever_the_error_holds(
    message: str, violations: list[Violation], metadata: dict[str, str], retry_after_s: float | None
) -> None:
    error = FieldViolationError(message, violations=violations, retry_after_s=retry_after_s)
    error.metadata = metadata
    status = to_status(error)
    assert status.ByteSize() < MAX_STATUS_BYTES
    told = from_status(status)
    if OMITTED not in metadata:
        assert len(told.violations) + int(told.metadata.get(OMITTED, "0")) == len(violations)
    assert len(quote(wire_message(message).encode(), safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("reason", reasons())
def test_every_reason_survives_the_wire(reason: str) -> None:
    cls = from_reason(reason)
    assert cls is not None
    error = cls("what happened", violations=[Violation("a.b", "is wrong")], key="value")
    back = from_status(to_status(error))
    assert type(back) is cls
    assert (back.code, back.reason, back.message) == (error.code, error.reason, error.message)
    assert (back.metadata, back.violations) == (error.metadata, error.violations)
    assert back.retry_after_s == error.retry_after_s


def test_a_reason_of_a_newer_server_becomes_the_family_of_its_code() -> None:
    status = status_pb2.Status(code=14, message="the moon is full")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="MOON_FULL", domain="soma.dev"))
    error = from_status(status)
    assert type(error) is UnavailableError
    assert (error.code, error.reason, str(error)) == (Code.UNAVAILABLE, "MOON_FULL", "the moon is full")


def test_details_of_another_domain_are_not_taken_for_ours() -> None:
    status = status_pb2.Status(code=5, message="gone")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="MEMORY_NOT_FOUND", domain="example.org"))
    error = from_status(status)
    assert (type(error).__name__, error.reason) == ("NotFoundError", "")


def test_only_a_typed_error_is_shown() -> None:
    missing = MemoryNotFoundError(memory_id="m")
    assert public_error(missing, "r") is missing
    for secret in (
        RuntimeError("secret"),
        InternalError("secret", memory_id="secret"),
        SomaError("secret"),
        ExceptionGroup("secret", [missing, ValueError("secret")]),
    ):
        shown = public_error(secret, "r")
        assert (type(shown), shown.metadata) == (InternalError, {"request_id": "r"})
        assert "secret" not in str(shown)
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [missing]), OverloadedError()])
    assert public_error(nested, "r") is missing


def test_an_item_error_tells_what_a_calls_error_would_and_no_more() -> None:
    mismatch = VersionMismatchError(memory_id="m", expected="3", actual="4")
    back = error_from_item(item_error(mismatch, "r"))
    assert (type(back), back.metadata) == (VersionMismatchError, mismatch.metadata)
    assert item_error(KeyError("secret"), "r").metadata == {"request_id": "r"}
    assert len(item_error(MemoryNotFoundError("x" * 10_000), "r").message) <= MAX_MESSAGE_BYTES


def test_a_wait_that_outlasts_the_call_is_sent_as_do_not_retry() -> None:
    error = CircuitBreakerOpenError(retry_after_s=5.0)
    assert "5000" == dict(trailers(error, "r", remaining_s=None))[RETRY_PUSHBACK]
    assert "5000" == dict(trailers(error, "r", remaining_s=6.0))[RETRY_PUSHBACK]
    assert "-1" == dict(trailers(error, "r", remaining_s=4.0))[RETRY_PUSHBACK]
