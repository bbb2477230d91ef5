"""What JSON Soma accepts as a payload, so that what is stored reads back to the letter.

Payloads travel and are stored as the received text: no number is ever converted, because
floats lose integers above 2^53 and some parsers turn 2^64 into 1.8e19.
"""

from __future__ import annotations

import json
from typing import Any

from soma_contract.limits import LIMITS, Limits


class JsonRuleError(ValueError):
    """A payload breaks a rule; the message says which."""


class _Number(str):
    """A number kept as its digits."""

    __slots__ = ()


def parse_payload(text: str, limits: Limits = LIMITS) -> dict[str, Any]:
    """Parse a JSON object under the contract's rules and return it; numbers stay as digit strings.

    Raises JsonRuleError for invalid JSON, a non-object, duplicate keys, NaN or infinities,
    NUL or lone surrogates, numbers over 40 digits, and depth, node or size limits exceeded.
    """
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise JsonRuleError("text is not valid Unicode") from None
    if len(encoded) > limits.payload_bytes:
        raise JsonRuleError(f"payload is over {limits.payload_bytes} bytes")
    _check_depth(text, limits.json_depth)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_int=lambda digits: _number(digits, limits),
            parse_float=lambda digits: _number(digits, limits),
            parse_constant=_refuse_constant,
        )
    except JsonRuleError:
        raise
    except (ValueError, RecursionError) as error:
        raise JsonRuleError(f"payload is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise JsonRuleError("payload must be a JSON object")
    _check_tree(value, limits)
    return value


def is_number(value: object) -> bool:
    """Whether a value of :func:`parse_payload` was a JSON number (kept as its digits)."""
    return isinstance(value, _Number)


def check_text(text: str, max_bytes: int) -> str | None:
    """Return what is wrong with a text field, or None: NUL, lone surrogates, size in UTF-8 bytes."""
    if "\x00" in text:
        return "contains a NUL character"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "contains a lone surrogate"
    if size > max_bytes:
        return f"is {size} bytes long, the limit is {max_bytes}"
    return None


def _check_depth(text: str, limit: int) -> None:
    """Refuse deep nesting before the parser recurses into it."""
    depth, in_string, escaped = 0, False, False
    if text.count("{") + text.count("[") <= limit:
        return
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "{[":
            depth += 1
            if depth > limit:
                raise JsonRuleError(f"payload is nested deeper than {limit} levels")
        elif char in "}]":
            depth -= 1


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonRuleError(f"payload has the key {key[:64]!r} twice in one object")
            seen.add(key)
    return tree


def _number(digits: str, limits: Limits) -> _Number:
    if sum(char.isdigit() for char in digits) > limits.json_number_digits:
        raise JsonRuleError(f"payload has a number of more than {limits.json_number_digits} digits")
    exponent = digits.lower().partition("e")[2]
    if exponent and abs(int(exponent)) > 308:
        raise JsonRuleError("payload has a number whose exponent is beyond 308")
    return _Number(digits)


def _refuse_constant(name: str) -> None:
    raise JsonRuleError(f"payload contains {name}, which is not JSON")


def _check_tree(root: dict[str, Any], limits: Limits) -> None:
    nodes = 0
    stack: list[Any] = [root]
    while stack:
        value = stack.pop()
        nodes += 1
        if nodes > limits.json_nodes:
            raise JsonRuleError(f"payload has more than {limits.json_nodes} values")
        if isinstance(value, dict):
            for key in value:
                _check_string(key)
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, str) and not isinstance(value, _Number):
            _check_string(value)


def _check_string(value: str) -> None:
    problem = check_text(value, LIMITS.payload_bytes)
    if problem:
        raise JsonRuleError(f"payload has a string that {problem}")
