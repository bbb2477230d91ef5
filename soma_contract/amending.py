"""Copies of memories with other values, in less than half of the time of dataclasses.replace.

Every write copies its memory two or three times, an import twice a record, and replace spends its time in a constructor
of 24 arguments.
"""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import Any

from soma_contract.memory import Memory

_PLACES = {field.name: place for place, field in enumerate(fields(Memory))}
_values = attrgetter(*_PLACES)
_SETTERS = [getattr(Memory, name).__set__ for name in _PLACES]
_new = object.__new__


def amended(memory: Memory, **changes: Any) -> Memory:
    """Return a memory like this one but for the changes; raises KeyError for a field that there is not."""
    values = [*_values(memory)]
    for name, value in changes.items():
        values[_PLACES[name]] = value
    made = _new(Memory)
    for put, value in zip(_SETTERS, values, strict=True):
        put(made, value)
    return made
