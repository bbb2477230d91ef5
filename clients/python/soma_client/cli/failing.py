"""What a failed command says and how it exits."""

from __future__ import annotations

import json
import sys

from soma_contract.errors import Code, SomaError

REFUSED = 1
USAGE = 2
UNAVAILABLE = 3
FORBIDDEN = 4
FAULT = 5
INTERRUPTED = 130

_CODES = {
    Code.UNAVAILABLE: UNAVAILABLE,
    Code.DEADLINE_EXCEEDED: UNAVAILABLE,
    Code.RESOURCE_EXHAUSTED: UNAVAILABLE,
    Code.CANCELLED: UNAVAILABLE,
    Code.UNAUTHENTICATED: FORBIDDEN,
    Code.PERMISSION_DENIED: FORBIDDEN,
    Code.INTERNAL: FAULT,
    Code.UNKNOWN: FAULT,
    Code.DATA_LOSS: FAULT,
}

_ADVICE = {
    "CREDENTIALS_MISSING": "give --api-key, set SOMA_KEY, or run 'soma up' on this machine, which leaves a key",
    "CREDENTIALS_INVALID": "is this the key of this server? 'soma up' prints its own",
    "TENANT_FORBIDDEN": "see 'soma whoami' for the tenants of this key",
    "SCOPE_MISSING": "see 'soma whoami' for the scopes of this key, 'soma key create --scope' for a wider one",
    "UNIMPLEMENTED": "see 'soma info' for what this server serves; some services are the memory server's alone",
    "FEATURE_DISABLED": "some commands are answered by one of the two servers only",
    "TENANT_NOT_FOUND": "'soma tenant list' shows which exist",
    "KEY_NOT_FOUND": "'soma key list TENANT' shows which exist",
    "MEMORY_NOT_FOUND": "'soma list' shows what is there; --namespace and --tenant say where to look",
}


def exit_code(error: SomaError) -> int:
    """The exit code of an error."""
    return _CODES.get(error.code, REFUSED)


def advice(error: SomaError) -> str:
    """What somebody at a terminal can do about it; empty where the message says all."""
    if error.reason in _ADVICE:
        return _ADVICE[error.reason]
    if error.code is Code.UNAVAILABLE and not error.reason:
        return "is it running? 'soma up' starts it on this machine, 'soma doctor' looks closer"
    return ""


def tell(error: SomaError, *, as_json: bool) -> int:
    """Write an error to stderr and return the exit code."""
    if as_json:
        sys.stderr.write(json.dumps({"error": _document(error)}) + "\n")
        return exit_code(error)
    lines = [f"soma: {error.message}"]
    if error.reason:
        told = "".join(f" {key}={value}" for key, value in sorted(error.metadata.items()))
        lines.append(f"  reason  {error.reason}{told}")
    lines += [f"  field   {field or '(request)'}: {description}" for field, description in error.violations]
    if error.retry_after_s is not None and exit_code(error) == UNAVAILABLE:
        lines.append(f"  retry   after {error.retry_after_s:g} s")
    if say := advice(error):
        lines.append(f"  try     {say}")
    sys.stderr.write("\n".join(lines) + "\n")
    return exit_code(error)


def _document(error: SomaError) -> dict[str, object]:
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "metadata": error.metadata,
        "violations": [{"field": field, "description": description} for field, description in error.violations],
        "retry_after_s": error.retry_after_s,
        "exit_code": exit_code(error),
    }
