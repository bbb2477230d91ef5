"""Who calls: the bearer token, judged by the server's authenticator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rpckit.layer import Call
from soma_contract.errors import CredentialsInvalidError, CredentialsMissingError
from soma_contract.tenant import Caller


class Authenticator(Protocol):
    """Knows credentials."""

    async def authenticate(self, token: str) -> Caller:
        """The caller who holds this token.

        Raises CredentialsInvalidError, CredentialsExpiredError, or ComponentUnavailableError when it cannot tell.
        """


class Authentication:
    """Lets only known callers pass, and only with the scope the method asks for."""

    name = "authentication"

    def __init__(self, authenticator: Authenticator, scopes: Mapping[str, str] | None = None) -> None:
        """``scopes`` maps a method's path, or a service's prefix ``/soma.admin.v1.``, to the scope it needs."""
        self._authenticator = authenticator
        self._scopes = dict(scopes or {})

    async def enter(self, call: Call) -> None:
        if call.method.is_open:
            return
        caller = await self._authenticator.authenticate(_bearer(call.received.authorization))
        scope = self._scope(call.method.path)
        if scope is not None:
            caller.require_scope(scope)
        call.caller = caller

    def leave(self, call: Call) -> None:
        pass

    def _scope(self, path: str) -> str | None:
        if path not in self._scopes:
            matching = [prefix for prefix in self._scopes if prefix.endswith((".", "/")) and path.startswith(prefix)]
            self._scopes[path] = self._scopes[max(matching, key=len)] if matching else ""
        return self._scopes[path] or None


def _bearer(authorization: str | None) -> str:
    if authorization is None:
        raise CredentialsMissingError
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token or token != token.strip() or len(token) > 8192:
        raise CredentialsInvalidError("the metadata 'authorization' must be 'Bearer <API key or JWT>'")
    return token
