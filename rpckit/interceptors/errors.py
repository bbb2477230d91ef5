"""Turns whatever a call ended with into the status its caller sees.

Left alone, grpc.aio sends the text of an unexpected exception to the caller. Here a SomaError travels with its details,
and of anything else only the request id; the exception itself goes to the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NoReturn

import grpc

from rpckit.layer import Call
from rpckit.status import STATUS_CODES, public_error, trailers, wire_message
from soma_contract.errors import BudgetSpentError, Code, SomaError, UnimplementedError

_log = logging.getLogger("soma.errors")


async def answer(call: Call, error: BaseException) -> NoReturn:
    """End the call with ``error``: sends the status and raises what grpc needs to see."""
    if isinstance(error, asyncio.CancelledError) and _is_cancelled():
        _note(call, _ended_code(call))
        raise error
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    if isinstance(error, grpc.aio.AbortError):  # a handler that has answered by itself, such as health's
        _note(call, _code_set(call) or Code.UNKNOWN)
        raise error
    await _abort(call, _shown(call, error))


def _is_cancelled() -> bool:
    # A handler may also raise CancelledError because something it waited for was cancelled. grpc would then send
    # nothing at all and the caller wait for ever.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _shown(call: Call, error: BaseException) -> SomaError:
    if isinstance(error, TimeoutError) and call.scope is not None and call.scope.expired():
        return call.cut or BudgetSpentError(stage=call.stage)
    if isinstance(error, NotImplementedError) and _code_set(call) is Code.UNIMPLEMENTED:
        return UnimplementedError()
    shown = public_error(error, call.context.request_id)
    if shown is not error and shown.code is Code.INTERNAL:
        _log.error(
            "unexpected %s in %s, request %s",
            type(error).__name__,
            call.method.path,
            call.context.request_id,
            exc_info=error,
        )
    return shown


async def _abort(call: Call, error: SomaError) -> NoReturn:
    _note(call, error.code, error.reason)
    try:
        await call.wire.abort(
            STATUS_CODES[error.code],
            wire_message(error.message),
            trailers(error, call.context.request_id, call.context.remaining_s()),
        )
    except (grpc.aio.InternalError, grpc.aio.UsageError) as gone:
        # The caller has gone, or the handler answered before it failed: nobody is left to tell.
        raise asyncio.CancelledError from gone


def _note(call: Call, code: Code, reason: str = "") -> None:
    call.code, call.reason = code, reason


def _ended_code(call: Call) -> Code:
    # A caller that gives up at its deadline is heard of a little before ours: on its way here a deadline is rounded up
    # to about 1 %.
    remaining_s = call.context.remaining_s()
    early_s = 0.05 + 0.01 * (time.perf_counter() - call.started)
    return Code.DEADLINE_EXCEEDED if remaining_s is not None and remaining_s <= early_s else Code.CANCELLED


def _code_set(call: Call) -> Code | None:
    code: object = call.wire.code()  # None or 0 until somebody sets it
    return Code(code.value[0]) if isinstance(code, grpc.StatusCode) else None
