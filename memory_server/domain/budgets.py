"""Splitting a recall's deadline among its stages."""

from __future__ import annotations

from dataclasses import dataclass

EMBED_SHARE, INDEX_SHARE, GRAPH_SHARE, RANK_SHARE = 0.30, 0.40, 0.20, 0.10
MAX_GRAPH_S = 0.1


@dataclass(frozen=True, slots=True)
class RecallBudgets:
    """Seconds each stage may take; a leg that is later is dropped and named in the summary."""

    embed_s: float
    index_s: float
    graph_s: float
    rank_s: float


def split_deadline(remaining_s: float) -> RecallBudgets:
    """Split `remaining_s` seconds: embed 30 %, index 40 %, graph 20 % but at most 0.1 s, rank 10 %.

    What the bounded graph leg leaves over goes to the index.  A deadline in the past gives zero to all.
    """
    total_s = max(0.0, remaining_s)
    graph_s = min(MAX_GRAPH_S, GRAPH_SHARE * total_s)
    return RecallBudgets(
        embed_s=EMBED_SHARE * total_s,
        index_s=INDEX_SHARE * total_s + (GRAPH_SHARE * total_s - graph_s),
        graph_s=graph_s,
        rank_s=RANK_SHARE * total_s,
    )
