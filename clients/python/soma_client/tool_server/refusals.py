"""An error in words that tell a model what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mcp.server.mcpserver.exceptions import ToolError

from soma_contract.errors import Code, SomaError

_DO = {
    "FIELD_VIOLATION": "Correct what is named and call again.",
    "SCHEMA_VIOLATION": "Correct the payload as named and call again.",
    "MEMORY_NOT_FOUND": "Nothing is stored under that name. Look for it with memory_search, by text or by key_prefix.",
    "CREDENTIALS_MISSING": "You cannot solve this. Tell the user that the tool server has no Soma key.",
    "CREDENTIALS_INVALID": "You cannot solve this. Tell the user that the Soma key of the tool server is not valid.",
    "CREDENTIALS_EXPIRED": "You cannot solve this. Tell the user that the Soma key of the tool server has expired.",
    "TENANT_FORBIDDEN": "You cannot solve this. Tell the user that the Soma key does not reach that tenant.",
    "SCOPE_MISSING": "You cannot solve this. Tell the user that the Soma key does not allow this.",
    "QUOTA_EXCEEDED": "You cannot solve this. Tell the user that the memory quota is used up.",
}
_LATER = "Nothing is lost: wait {wait} and call again with the same arguments, which never stores anything twice."


def told(error: SomaError) -> str:
    """What happened, where, and what to do."""
    words = [error.message.rstrip(".") + "."]
    words += [f"{field or 'The request'}: {description}." for field, description in error.violations]
    words.append(_advice(error))
    return " ".join(word for word in words if word)


def _advice(error: SomaError) -> str:
    if error.reason in _DO:
        return _DO[error.reason]
    if error.code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.ABORTED):
        wait = f"{error.retry_after_s:.0f} seconds" if error.retry_after_s else "a few seconds"
        return _LATER.format(wait=wait)
    return ""


@contextmanager
def telling() -> Iterator[None]:
    """Turns what Soma refuses into what a tool tells."""
    try:
        yield
    except SomaError as error:
        raise ToolError(told(error)) from error
    except UnicodeEncodeError as error:
        raise ToolError("A text holds half of a surrogate pair. Write the character in full and call again.") from error
