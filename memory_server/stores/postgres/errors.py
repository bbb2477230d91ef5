"""What the driver raises, told in the words of the contract: no driver text leaves this package."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from soma_contract.errors import (
    BudgetSpentError,
    ComponentUnavailableError,
    InternalError,
    SomaError,
    WriteConflictError,
)

_log = logging.getLogger("soma.postgres")

COMPONENT = "postgres"


class PostgresRefusedError(RuntimeError):
    """This Postgres cannot be the truth; the message says why and what to change."""


_RACES = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.UniqueViolationError,
)
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.ProtocolError,
    OSError,
    EOFError,
)


def waited_in_vain(error: WriteConflictError) -> bool:
    """Whether a conflict is a row that stayed locked, and not a race that a second try can win."""
    return isinstance(error.__cause__, asyncpg.LockNotAvailableError)


@contextmanager
def translated(stage: str) -> Iterator[None]:
    """Turn the driver's errors into the contract's; ``stage`` is named when the time is spent."""
    try:
        yield
    except SomaError:
        raise
    except _RACES as error:
        raise WriteConflictError from error
    except (TimeoutError, asyncpg.QueryCanceledError) as error:
        raise BudgetSpentError(stage=stage) from error
    except _AWAY as error:
        _log.warning("postgres is away: %s", type(error).__name__)
        raise ComponentUnavailableError(component=COMPONENT) from error
    except asyncpg.PostgresError as error:
        _log.exception("postgres refused a statement of ours in %s", stage)
        raise InternalError("something unforeseen happened in the store of truth") from error
