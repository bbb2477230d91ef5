"""JSON Web Tokens of an identity provider, checked against its public keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from soma_contract.errors import CredentialsExpiredError, CredentialsInvalidError
from soma_contract.tenant import ACT_AS, Caller, is_tenant_name

ALGORITHMS = ("RS256", "RS512", "ES256", "ES384", "EdDSA")
"""Asymmetric ones only: with a shared secret whoever checks a token could make one."""
TENANTS_CLAIM = "soma_tenants"


@dataclass(frozen=True, slots=True)
class JwtTokens:
    """Judges tokens; ``keys`` maps key ids to public keys, the empty id serves tokens that name none."""

    keys: dict[str, Any]
    audience: str
    issuer: str

    @classmethod
    def load(cls, path: Path, *, audience: str, issuer: str) -> JwtTokens:
        """Read a PEM public key, or a JWKS file.  Raises ValueError for anything else."""
        text = path.read_text()
        if text.lstrip().startswith("{"):
            try:
                found = jwt.PyJWKSet.from_dict(json.loads(text))
            except (ValueError, jwt.PyJWTError) as error:
                raise ValueError(f"SOMA_JWT_KEYS: {path.name} is not a JWKS file: {error}") from None
            return cls({key.key_id or "": key.key for key in found.keys}, audience, issuer)
        return cls({"": text}, audience, issuer)

    def judge(self, token: str) -> Caller:
        """Return the caller a token speaks for.

        Claims: ``sub``, ``exp``, ``aud``, ``iss``, ``soma_tenants`` (a list of tenants) and ``scope`` (scopes
        between spaces).  Raises CredentialsExpiredError or CredentialsInvalidError; a token never has act-as.
        """
        try:
            key = self.keys.get(jwt.get_unverified_header(token).get("kid", ""), self.keys.get(""))
            if key is None:
                raise CredentialsInvalidError
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self.audience,
                issuer=self.issuer,
                options={"require": ["exp", "aud", "iss", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise CredentialsExpiredError from None
        except jwt.PyJWTError:
            raise CredentialsInvalidError from None
        tenants = claims.get(TENANTS_CLAIM)
        scope = claims.get("scope", "")
        if not isinstance(tenants, list) or not isinstance(scope, str) or not all(map(_names_tenant, tenants)):
            raise CredentialsInvalidError
        return Caller(
            credential_id=f"jwt:{claims['sub']}"[:256],
            tenants=frozenset(tenants),
            scopes=frozenset(scope.split()) - {ACT_AS},
        )


def _names_tenant(name: object) -> bool:
    return isinstance(name, str) and is_tenant_name(name)
