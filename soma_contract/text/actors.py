"""Names of actors: cut out of embedded text, matched against who said it.

In a conversation a name says who speaks or is spoken to, on nearly every line, and a sentence vector is dominated by
it.  So names of known actors are cut from the dense side of both text and query, and come back as a signal of their
own: does the memory's actor match the one the query names?
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from soma_contract.text.stop_words import stop_words

MATCH, UNKNOWN, OTHER = 1.0, 0.5, 0.0
MIN_NAME_CHARS = 3

_USER_ROLES = frozenset({"user", "human", "customer"})
_ASSISTANT_ROLES = frozenset({"assistant", "ai", "agent", "bot", "model"})
_OTHER_ROLES = frozenset({"system", "tool", "developer", "function"})
_ROLES = _USER_ROLES | _ASSISTANT_ROLES | _OTHER_ROLES
_FIRST_PERSON = re.compile(r"\b(?:i|me|my|mine|myself)\b", re.IGNORECASE)
_SECOND_PERSON = re.compile(r"\b(?:you|your|yours|yourself)\b", re.IGNORECASE)
# Names that are also everyday words are recognised only as the actor spells them.
_EVERYDAY_NAMES = """
may april june august art bill bob chip crystal dawn dean drew faith frank gene grace grant guy hope iris ivy jack jade
joy lily mark max melody miles olive pat penny ray rich rob rose ruby rusty sandy sky sue summer victor violet will
"""
_EVERYDAY = stop_words("english") | frozenset(_EVERYDAY_NAMES.split())


@dataclass(frozen=True, slots=True)
class Mention:
    """The actors a query names; `single` when exactly one, the only case that can be matched."""

    actors: frozenset[str] = frozenset()

    @property
    def single(self) -> str | None:
        """Return the one actor named, or None when the query names none or several."""
        return next(iter(self.actors)) if len(self.actors) == 1 else None


class ActorNames:
    """The known actors of a store; finds and cuts their full names and the parts of those."""

    def __init__(self, actors: Iterable[str]) -> None:
        self.actors = frozenset(actor for actor in actors if actor.strip())
        by_name: dict[str, set[str]] = {}
        everyday: dict[str, set[str]] = {}
        for actor in self.actors:
            if actor.casefold() in _ROLES:
                continue
            for name in _names(actor):
                common = name.casefold() in _EVERYDAY
                (everyday if common else by_name).setdefault(name if common else name.casefold(), set()).add(actor)
        self._by_name = {name: frozenset(owners) for name, owners in by_name.items()}
        self._everyday = {name: frozenset(owners) for name, owners in everyday.items()}
        self._pattern = _pattern(self._by_name, self._everyday)
        self._users = frozenset(actor for actor in self.actors if actor.casefold() in _USER_ROLES)
        self._assistants = frozenset(actor for actor in self.actors if actor.casefold() in _ASSISTANT_ROLES)

    def cut(self, text: str) -> str:
        """Return `text` without names of known actors; unchanged when nothing else would be left."""
        if self._pattern is None or self._pattern.search(text) is None:
            return text
        rest = re.sub(r"[ \t]{2,}", " ", self._pattern.sub(" ", text)).strip()
        return rest if any(map(str.isalnum, rest)) else text

    def mentioned(self, query: str) -> Mention:
        """Return the actors named in `query`; "I" and "you" name the user and the assistant where such roles act."""
        found: set[str] = set()
        if self._pattern is not None:
            for match in self._pattern.finditer(query):
                name = match.group("name")
                found |= self._everyday.get(name, frozenset()) | self._by_name.get(name.casefold(), frozenset())
        if self._users and _FIRST_PERSON.search(query):
            found |= self._users
        if self._assistants and _SECOND_PERSON.search(query):
            found |= self._assistants
        return Mention(frozenset(found))


@lru_cache(maxsize=1_024)
def known_actors(actors: frozenset[str]) -> ActorNames:
    """Return the shared reader of these names; building its pattern costs more than using it."""
    return ActorNames(actors)


def without_names(text: str, actors: Iterable[str]) -> str:
    """Return `text` as it is embedded: without names of the known actors."""
    return known_actors(frozenset(actors)).cut(text)


def actor_match(actors: Sequence[str], mention: Mention) -> NDArray[np.float32]:
    """Return 1 where the actor is the one named, 0 where it is another, .5 where that cannot be told; shape (n,)."""
    named = mention.single
    if named is None:
        return np.full(len(actors), UNKNOWN, dtype=np.float32)
    return np.array(
        [UNKNOWN if not actor else MATCH if actor == named else OTHER for actor in actors], dtype=np.float32
    )


def _names(actor: str) -> set[str]:
    """Return the full name and its parts that can stand alone."""
    parts = {part for part in actor.split() if len(part) >= MIN_NAME_CHARS and part.isalpha()}
    return parts | {" ".join(actor.split())}


def _pattern(names: Iterable[str], everyday: Iterable[str]) -> re.Pattern[str] | None:
    """Return one pattern over all names, longest first, with a possessive ending taken along."""
    options = sorted(
        [(name, True) for name in names] + [(name, False) for name in everyday], key=lambda o: (-len(o[0]), o)
    )
    if not options:
        return None
    union = "|".join(f"(?i:{re.escape(name)})" if loose else re.escape(name) for name, loose in options)
    return re.compile(rf"(?<!\w)(?P<name>{union})(?:['’]s)?(?!\w)")
