"""Corpus statistics of keyword search, kept in batches behind the writes."""

from __future__ import annotations

from dataclasses import dataclass

from memory_server.stores.postgres import sql
from memory_server.stores.postgres.transactions import Transactions

BATCH = 2_000


@dataclass(frozen=True, slots=True)
class TermStatistics:
    """Folds what writes have appended into the counts that BM25 reads."""

    transactions: Transactions

    async def fold(self, limit: int = BATCH) -> int:
        """Fold up to ``limit`` changes and return how many there were; 0 also while another worker folds."""
        async with self.transactions.worker() as connection:
            if not await connection.fetchval(sql.query("one_folder")):
                return 0
            row = await connection.fetchrow(sql.query("fold_terms"), limit)
            if row["tenants"]:
                fallen = zip(row["tenants"], row["keys"], row["namespaces"], strict=True)
                await connection.executemany(sql.query("drop_unused_term"), list(fallen))
            folded: int = row["folded"]
        return folded
