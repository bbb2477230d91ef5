"""Fixtures on the real Postgres."""

from tests.conformance.truth_stores import (
    stranger,
    tenant,
    truth_database,
    truth_in_postgres,
)

__all__ = ["stranger", "tenant", "truth_database", "truth_in_postgres"]
