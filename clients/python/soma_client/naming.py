"""Which memory is meant, and in which namespace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from soma_contract.coordinate import parse_coordinate
from soma_contract.errors import FieldViolationError
from soma_contract.filters import Filter, with_default_namespace
from soma_contract.memory import DEFAULT_NAMESPACE, Memory, Target

Named = str | Target | Memory
"""A memory id, a target, or a memory that was read before."""


def target_of(
    named: Named | None = None,
    *,
    key: str = "",
    coordinate: str | Sequence[float] | None = None,
    namespace: str = DEFAULT_NAMESPACE,
) -> Target:
    """The target named in exactly one way; raises FieldViolationError otherwise."""
    if (named is not None) + bool(key) + (coordinate is not None) != 1:
        raise FieldViolationError.at("target", "name the memory by exactly one of id, key and coordinate")
    if coordinate is not None:
        try:
            return Target(namespace=namespace, coordinate=parse_coordinate(coordinate))
        except ValueError as error:
            raise FieldViolationError.at("target.coordinate", str(error)) from None
    if isinstance(named, Memory):
        return Target(memory_id=named.memory_id)
    if isinstance(named, Target):
        return named if named.namespace != DEFAULT_NAMESPACE else replace(named, namespace=namespace)
    return Target(memory_id=named) if named is not None else Target(namespace=namespace, key=key)


def filter_in(node: Filter, namespace: str) -> Filter:
    """The filter, confined to the namespace unless it names one itself; the server knows the default one."""
    return node if namespace == DEFAULT_NAMESPACE else with_default_namespace(node, namespace)
