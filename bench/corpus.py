"""Sentences for load: distinct, plausible, of our own making, the same for the same numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator

_WHO = [
    "Mara",
    "Ilya",
    "Priya",
    "Sam",
    "Joost",
    "Nadia",
    "Tom",
    "Ruth",
    "Owen",
    "Lena",
    "Elena",
    "Benno",
    "Jana",
    "Agnieszka",
    "Lucia",
    "Haddad",
]
_DOES = (
    "moved",
    "repaired",
    "ordered",
    "cancelled",
    "described",
    "painted",
    "sold",
    "measured",
    "planned",
    "postponed",
    "tested",
    "borrowed",
    "counted",
    "promised",
    "forgot",
    "found",
)
_HOW = ["quickly", "quietly", "twice", "reluctantly", "yesterday", "again", "together", "alone", "early", "finally"]
_WHICH = [
    "blue",
    "old",
    "new",
    "heavy",
    "broken",
    "small",
    "borrowed",
    "wooden",
    "electric",
    "secret",
    "spare",
    "northern",
    "rusty",
    "folded",
    "narrow",
    "bright",
    "second",
    "quiet",
    "round",
    "yellow",
]
_WHAT = [
    "bicycle",
    "invoice",
    "map",
    "tile",
    "server",
    "sofa",
    "garden",
    "gate",
    "fuse",
    "box",
    "cable",
    "desk",
    "tablet",
    "recipe",
    "curry",
    "passport",
    "ferry",
    "ticket",
    "contract",
    "password",
    "calendar",
    "museum",
    "fossil",
    "bridge",
    "wheel",
    "pump",
    "tyre",
    "harbour",
    "kitchen",
    "window",
    "ladder",
    "violin",
    "telescope",
    "greenhouse",
    "letter",
    "suitcase",
    "camera",
    "notebook",
    "lantern",
    "compass",
    "anchor",
]
_WHERE = [
    "Lisbon Ghent Elm Lane",
    "harbour",
    "attic",
    "office",
    "canal",
    "station",
    "workshop",
    "library",
    "school",
    "market",
]
_WHY = (
    "because the deadline moved",
    "before the winter break",
    "after the meeting on Tuesday",
    "for the audit in November",
    "although nobody had asked",
    "so that the launch can happen",
    "as the neighbour suggested",
    "while the train was late",
)


def sentences(count: int, seed: int = 7) -> Iterator[tuple[str, str]]:
    """Yield ``count`` distinct (actor, sentence)."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        actor = rng.choice(_WHO)
        text = (
            f"{rng.choice(_WHO)} {rng.choice(_DOES)} the {rng.choice(_WHICH)} {rng.choice(_WHAT)} "
            f"{rng.choice(_HOW)} in {rng.choice(_WHERE)} {rng.choice(_WHY)}, number {rng.randrange(10_000)}."
        )
        if text not in seen:
            seen.add(text)
            yield actor, text


def questions(count: int, seed: int = 11) -> list[str]:
    """Return ``count`` distinct questions about such sentences."""
    rng = random.Random(seed)
    asked: dict[str, None] = {}
    while len(asked) < count:
        asked[
            f"What did {rng.choice(_WHO)} do with the {rng.choice(_WHICH)} {rng.choice(_WHAT)} {rng.choice(_WHY)}?"
        ] = None
    return list(asked)
