"""Who calls the brain: the memory server knows, and its verdicts are kept for when it is away."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict

import grpc

from brain_server.gateway.wire import MemoryWire
from brain_server.ports import Clock, KeptVerdict, Verdicts
from rpckit.status import error_from_rpc
from soma.admin.v1 import tenant_service_pb2 as pb
from soma.admin.v1.tenant_service_pb2_grpc import TenantServiceStub
from soma_contract.errors import (
    ComponentUnavailableError,
    CredentialsExpiredError,
    CredentialsInvalidError,
    SomaError,
)
from soma_contract.tenant import Caller

ASK_S = 2.0
KNOWN_S = 0.35
"""How long a caller waits for the memory server whose last verdict would do."""
PAUSE_S = 1.0
"""For so long nobody with a usable verdict asks again, once somebody waited in vain."""
CAPACITY = 10_000


class BrainIdentity:
    """The authenticator of the brain.

    A verdict is used unasked for ``fresh_s`` seconds, and for ``outage_s`` while the memory server does not answer.
    An unknown credential is refused by the memory server's word only: in an outage the answer is "unavailable".
    """

    def __init__(
        self, wire: MemoryWire, verdicts: Verdicts, clock: Clock, *, fresh_s: float = 5.0, outage_s: float = 86_400.0
    ) -> None:
        self._wire = wire
        self._verdicts = verdicts
        self._clock = clock
        self._fresh_s = fresh_s
        self._outage_s = outage_s
        self._kept: OrderedDict[bytes, KeptVerdict] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Caller]] = {}
        self._away_until = float("-inf")

    async def load(self) -> None:
        """Read what was kept before a restart."""
        self._kept = OrderedDict(await self._verdicts.load())

    async def authenticate(self, token: str) -> Caller:
        """Return who the bearer of a token is.

        Raises CredentialsInvalidError, CredentialsExpiredError, or ComponentUnavailableError for a credential that is
        not known while the memory server is away.
        """
        credential = hashlib.blake2b(token.encode(), digest_size=32, person=b"soma-verdict").digest()
        kept, now = self._kept.get(credential), self._clock.now().timestamp()
        # A clock that was set back must not keep a verdict fresh for longer.
        if kept is not None and 0 <= now - kept.judged_at < self._fresh_s:
            return kept.caller
        usable = kept is not None and 0 <= now - kept.judged_at < self._outage_s
        if kept is not None and usable and self._clock.monotonic() < self._away_until:
            return kept.caller
        try:
            async with asyncio.timeout(KNOWN_S if usable else None):
                return await self._asked(credential, token, patient=kept is None)
        except (CredentialsInvalidError, CredentialsExpiredError):
            self._kept.pop(credential, None)
            self._verdicts.drop(credential)
            raise
        except (SomaError, TimeoutError):
            self._away_until = self._clock.monotonic() + PAUSE_S
            if kept is None or not usable:
                raise ComponentUnavailableError(
                    "who you are cannot be checked now: the memory server does not answer; try again",
                    component="memory",
                    retry_after_s=1.0,
                ) from None
            return kept.caller

    async def _asked(self, credential: bytes, token: str, *, patient: bool) -> Caller:
        """Ask once for all callers that hold the same credential; ``patient`` waits for a connection."""
        task = self._asking.get(credential)
        if task is None:
            task = asyncio.create_task(self._ask(credential, token, patient=patient))
            self._asking[credential] = task
            task.add_done_callback(lambda done: self._asking.pop(credential, None) and done.exception())
        return await asyncio.shield(task)

    async def _ask(self, credential: bytes, token: str, *, patient: bool) -> Caller:
        stub = TenantServiceStub(self._wire.channel)
        try:
            answer = await stub.Authenticate(
                pb.AuthenticateRequest(bearer=token),
                timeout=ASK_S,
                metadata=self._wire.metadata(None),
                wait_for_ready=patient,
            )
        except grpc.aio.AioRpcError as failed:
            raise error_from_rpc(failed) from None
        if answer.verdict == pb.CREDENTIAL_VERDICT_EXPIRED:
            raise CredentialsExpiredError
        if answer.verdict != pb.CREDENTIAL_VERDICT_VALID:
            raise CredentialsInvalidError
        caller = Caller(
            credential_id=answer.credential_id,
            tenants=frozenset(answer.tenants),
            scopes=frozenset(answer.scopes),
            namespaces=tuple(answer.namespaces),
            suspended=frozenset(answer.suspended_tenants),
        )
        verdict = KeptVerdict(caller, self._clock.now().timestamp())
        self._kept[credential] = verdict
        self._verdicts.keep(credential, verdict)
        while len(self._kept) > CAPACITY:
            self._kept.popitem(last=False)
        return caller
