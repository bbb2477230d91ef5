"""First: give every call a name that its caller, our logs and our errors share."""

from __future__ import annotations

from rpckit import metadata
from rpckit.call import CallContext, enter_call
from rpckit.layer import Call, Method, Wire


def begin(method: Method, wire: Wire, deadline: float | None) -> Call:
    """Read the metadata and make the call known to all code that runs in it; refuses nothing yet."""
    received = metadata.read(wire.invocation_metadata() or ())
    context = CallContext(method.path, received.request_id, deadline, received.trace)
    enter_call(context)
    return Call(method, wire, received, context)
