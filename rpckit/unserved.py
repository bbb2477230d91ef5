"""Rpcs of a service that a server does not serve: they say so, instead of failing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from soma_contract.errors import UnimplementedError

_Servicer = TypeVar("_Servicer")


def served(servicer: Callable[..., _Servicer]) -> Callable[..., _Servicer]:
    """Return the class with an answer for every rpc it does not define: UNIMPLEMENTED."""
    # A callable for the type checker: the generated bases call a class abstract that leaves an rpc out.
    for base in cast("type[_Servicer]", servicer).__mro__:
        if not base.__module__.endswith("_pb2_grpc"):
            continue
        for name in vars(base):
            if not name.startswith("_") and getattr(servicer, name) is getattr(base, name):
                setattr(servicer, name, _unserved)
    return servicer


async def _unserved(self: object, request: Any, context: Any) -> Any:
    raise UnimplementedError
