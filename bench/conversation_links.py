"""Links that a conversation suggests by itself: what was said next, and who or what is named again."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from bench.dialogues import Turn
from soma.batch.v1 import batch_service_pb2 as pb
from soma.graph.v1 import graph_service_pb2 as graph_pb

_NAMED = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}")
"""A capitalised word that does not begin its sentence."""
NAMED_AGAIN = range(2, 9)
"""What is named in more turns than this tells them apart no longer."""


def in_order(turns: Sequence[Turn], ids: Mapping[str, str]) -> list[pb.Record]:
    """Each turn linked to the one after it in its session; ``ids`` maps turns to memories."""
    sessions: dict[str, list[Turn]] = defaultdict(list)
    for turn in turns:
        sessions[turn.session].append(turn)
    return [
        _link(ids[before.turn_id], ids[after.turn_id], "followed_by", 0.8)
        for session in sessions.values()
        for before, after in pairwise(sorted(session, key=lambda turn: turn.sequence))
    ]


def by_entities(turns: Sequence[Turn], ids: Mapping[str, str]) -> list[pb.Record]:
    """Each turn that names something linked to the next one that names it."""
    naming: dict[str, dict[str, None]] = defaultdict(dict)
    for turn in turns:
        for name in _NAMED.findall(turn.text):
            naming[name][turn.turn_id] = None
    pairs = {pair: None for named in naming.values() if len(named) in NAMED_AGAIN for pair in pairwise(named)}
    return [_link(ids[before], ids[after], "names_the_same", 0.6) for before, after in pairs]


def _link(source: str, target: str, relation: str, strength: float) -> pb.Record:
    return pb.Record(link=graph_pb.MemoryLink(source_id=source, target_id=target, relation=relation, strength=strength))
