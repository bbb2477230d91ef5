"""Whose memory a tool call works on.

Over stdio it is always the server's own caller. Over HTTP a request may bring a Soma key of its own; one without a key
is served as the server's own caller only where nobody but this machine can send it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from rpckit import metadata as keys
from soma_client.client import SomaClient

_BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Callers:
    """Finds the client for a call."""

    own: SomaClient
    serves_without_key: bool

    def of(self, context: Context[Any, Any]) -> SomaClient:
        """The client as whom to call; raises ToolError where there is none."""
        request = context.request_context.request
        sent = dict(request.headers) if request is not None else {}
        authorization = sent.get(keys.AUTHORIZATION, "")
        if authorization[: len(_BEARER)].lower() == _BEARER:
            return self.own.bound(
                key=authorization[len(_BEARER) :].strip(),
                tenant=sent.get(keys.TENANT, ""),
                persona=sent.get(keys.PERSONA, ""),
                session=sent.get(keys.SESSION, ""),
            )
        if not authorization and self.serves_without_key and self.own.identity.key:
            return self.own
        raise ToolError(
            "This tool server needs a Soma key with each request. You cannot solve this: tell the user to send it as "
            "'Authorization: Bearer KEY'."
        )
