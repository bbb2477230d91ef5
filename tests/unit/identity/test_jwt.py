"""JWTs of an identity provider: who they speak for, and every way to be refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from memory_server.core.identity import Identity
from memory_server.stores.analysing import analysis
from memory_server.stores.clock import SystemClock
from memory_server.stores.inmemory.journal_registry import InMemoryRegistry
from memory_server.stores.inmemory.journal_state import InMemoryTruth
from memory_server.stores.jwt_tokens import JwtTokens
from soma_contract.errors import CredentialsExpiredError, CredentialsInvalidError

PRIVATE = ec.generate_private_key(ec.SECP256R1())
CLAIMS: dict[str, Any] = {
    "sub": "agent-7",
    "aud": "soma",
    "iss": "https://login.example",
    "soma_tenants": ["acme"],
    "scope": "memory:read memory:write",
}


def signed(key: Any = PRIVATE, algorithm: str = "ES256", kid: str | None = None, **changes: Any) -> str:
    claims = {**CLAIMS, "exp": datetime.now(UTC) + timedelta(minutes=5), **changes}
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm, headers)


@pytest.fixture
def tokens(tmp_path: Path) -> JwtTokens:
    path = tmp_path / "key.pem"
    path.write_bytes(PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return JwtTokens.load(path, audience="soma", issuer="https://login.example")


def test_a_good_token_speaks_for_its_tenants_with_its_scopes(tokens: JwtTokens) -> None:
    caller = tokens.judge(signed())
    assert ("jwt:agent-7", frozenset({"acme"})) == (caller.credential_id, caller.tenants)
    assert frozenset({"memory:read", "memory:write"}) == caller.scopes


def test_a_token_cannot_give_itself_act_as(tokens: JwtTokens) -> None:
    assert not tokens.judge(signed(scope="act-as memory:read")).may_act_as


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"sub": None},
        {"exp": None},
        {"soma_tenants": None},
        {"soma_tenants": "acme"},
        {"soma_tenants": ["ACME"]},
        {"soma_tenants": [7]},
        {"scope": ["memory:read"]},
    ],
)
def test_a_token_with_wrong_claims_is_refused(tokens: JwtTokens, changes: dict[str, Any]) -> None:
    with pytest.raises(CredentialsInvalidError):
        tokens.judge(signed(**changes))


def test_an_old_token_is_expired(tokens: JwtTokens) -> None:
    with pytest.raises(CredentialsExpiredError):
        tokens.judge(signed(exp=datetime.now(UTC) - timedelta(seconds=1)))


def test_another_key_no_key_and_a_shared_secret_are_refused(tokens: JwtTokens) -> None:
    others = [
        signed(ec.generate_private_key(ec.SECP256R1())),
        signed(rsa.generate_private_key(65537, 2048), "RS256"),
        signed(None, "none"),
        signed("x" * 64, "HS512"),
        "a.b.c",
    ]
    for token in others:
        with pytest.raises(CredentialsInvalidError):
            tokens.judge(token)


def test_a_jwks_file_finds_the_key_by_its_id(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(PRIVATE.public_key()))
    path.write_text(json.dumps({"keys": [{**public, "kid": "k1", "use": "sig", "alg": "ES256"}]}))
    tokens = JwtTokens.load(path, audience="soma", issuer="https://login.example")
    assert "jwt:agent-7" == tokens.judge(signed(kid="k1")).credential_id
    with pytest.raises(CredentialsInvalidError):
        tokens.judge(signed(kid="k2"))


def test_a_file_that_holds_no_keys_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="SOMA_JWT_KEYS"):
        JwtTokens.load(path, audience="soma", issuer="i")


async def test_a_token_for_a_tenant_that_is_not_there_reaches_nothing(tokens: JwtTokens) -> None:
    identity = Identity(InMemoryRegistry(InMemoryTruth(SystemClock(), analysis())), SystemClock(), tokens)
    assert frozenset({"acme"}) == (await identity.authenticate(signed())).suspended
    await identity.create_tenant("acme")
    assert frozenset() == (await identity.authenticate(signed(sub="agent-8"))).suspended


async def test_without_a_provider_a_token_is_just_no_key() -> None:
    identity = Identity(InMemoryRegistry(InMemoryTruth(SystemClock(), analysis())), SystemClock())
    with pytest.raises(CredentialsInvalidError):
        await identity.authenticate(signed())
