"""One session's working memory: what is admitted, renewed, evicted, recalled and promoted.

Every rule is one pass over all items.  Times are Unix seconds, given by the caller and never going back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from brain_server.domain.item import Item, Observation, Observed, Promotion, Recalled, SessionState, Vector, Verdict
from brain_server.domain.novelty import ABSENT, normalised, novelty_of
from brain_server.domain.promotion import ASKED, HELD, earned, next_streaks
from brain_server.domain.salience import Floats, WorkingRules, at_admission, boosted
from brain_server.domain.slots import Held, Slots, widened

_FIRST_SLOTS = 16
_AT_ONCE = 8
"""Observations compared in one matrix product: larger ones are spread over threads, which costs more than it brings."""
_SEMANTIC_SHARE = 0.7


class Session:
    """One session's items under their rules."""

    def __init__(self, session_id: str, dimensions: int, rules: WorkingRules) -> None:
        self.session_id = session_id
        self.rules = rules
        self.slots = Slots(dimensions)
        self.persona_id = ""
        self.epoch = 0
        """Under which the memory server holds it for this brain; 0 is not at all yet."""
        self.last_sequence = 0
        self.touched_s = 0.0
        self._next_ordinal = 1

    def __len__(self) -> int:
        return len(self.slots)

    def of_length(self, dimensions: int) -> Session:
        """Return this empty session for vectors of another length; nobody can tell them apart."""
        other = Session(self.session_id, dimensions, self.rules)
        other.last_sequence, other.persona_id, other.epoch = self.last_sequence, self.persona_id, self.epoch
        return other

    # --- observing --------------------------------------------------------------------------------

    def observe(self, observations: Sequence[Observation], now_s: float, new_id: Callable[[], str]) -> list[Observed]:
        """Take in observations in their order and return what became of each."""
        answers: list[Observed] = []
        for start in range(0, len(observations), _AT_ONCE):
            answers += self._observe(observations[start : start + _AT_ONCE], now_s, new_id)
        return answers

    def _observe(self, observations: Sequence[Observation], now_s: float, new_id: Callable[[], str]) -> list[Observed]:
        slots, rules = self.slots, self.rules
        slots.grow(min(_FIRST_SLOTS, rules.capacity))
        narrow = normalised(np.stack([observation.vector for observation in observations]))
        wide = widened(narrow)
        # Likeness of each observation to each slot, kept current while the batch changes slots.
        likeness = wide @ slots.vectors().T
        likeness[:, slots.kinds == 0] = ABSENT
        among = wide @ wide.T
        faded = slots.faded(now_s, rules)
        self.touched_s = now_s
        answers: list[Observed] = []
        for place, observation in enumerate(observations):
            if 0 < observation.sequence <= self.last_sequence:
                answers.append(Observed(Verdict.REPEATED, "", 0.0, 0.0))
                continue
            self.last_sequence = max(self.last_sequence, observation.sequence)
            row = likeness[place]
            best = int(row.argmax())
            best_cosine = float(row[best])
            novelty = novelty_of(best_cosine)
            salience = at_admission(novelty, observation.reward, rules)
            verdict, evicted = Verdict.REFRESHED, ""
            slot = self._renewed_by(observation, row, best, best_cosine)
            if slot >= 0:
                salience = boosted(max(float(faded[slot]), salience), rules)
                slots.rewrite(slot, observation.kind, observation.text, observation.payload_json)
                slots.at(slot).reward = max(slots.at(slot).reward, observation.reward)
                slots.uses[slot] += 1
                if observation.long_term_id:
                    slots.become(slot, observation.long_term_id)
            elif salience >= rules.admission or observation.reward >= rules.always_reward:
                verdict = Verdict.ADMITTED
                slot, evicted = self._room(faded)
                if slot >= len(faded):
                    likeness, faded = self._grown(likeness, faded)
                held = Held(
                    observation.item_id or new_id(),
                    observation.text,
                    observation.payload_json,
                    observation.reward,
                    observation.long_term_id,
                    observation.actor,
                )
                slots.put(slot, held, observation.kind, self._next_ordinal, now_s)
                slots.originate(slot, observation.sequence, novelty, observation.occurred_s or now_s)
                self._next_ordinal += 1
            else:
                answers.append(Observed(Verdict.IGNORED, "", salience, novelty))
                continue
            slots.point(slot, narrow[place], wide[place])
            slots.weigh(slot, salience, now_s)
            slots.changed.add(slot)
            faded[slot] = salience
            likeness[place + 1 :, slot] = among[place + 1 :, place]
            answers.append(Observed(verdict, slots.at(slot).item_id, salience, novelty, evicted))
        return answers

    def _renewed_by(self, observation: Observation, row: NDArray[np.float32], best: int, best_cosine: float) -> int:
        """Return the slot of the item that the observation renews, or -1: the one it names, else its near duplicate."""
        slot = self.slots.by_id.get(observation.item_id, -1) if observation.item_id else -1
        if slot < 0 and observation.long_term_id:
            slot = self.slots.by_long_term.get(observation.long_term_id, -1)
        if slot >= 0 or best_cosine <= self.rules.duplicate_cosine:
            return slot
        if self.slots.kinds[best] == observation.kind:
            return best
        same = np.where(self.slots.kinds == observation.kind, row, ABSENT)
        best = int(same.argmax())
        return best if same[best] > self.rules.duplicate_cosine else -1

    def _room(self, faded: Floats) -> tuple[int, str]:
        """Return an empty slot, made by growing or by evicting the least salient item, and that item's id."""
        slots = self.slots
        if len(slots) >= self.rules.capacity:
            slot = slots.least(faded)
            return slot, slots.clear(slot)
        if len(slots) == len(slots.held):
            slot = len(slots.held)
            slots.grow(min(self.rules.capacity, 2 * slot))
            return slot, ""
        return int((slots.kinds == 0).argmax()), ""

    def _grown(self, likeness: NDArray[np.float32], faded: Floats) -> tuple[NDArray[np.float32], Floats]:
        more = len(self.slots.held) - len(faded)
        wider = np.pad(likeness, ((0, 0), (0, more)), constant_values=ABSENT)
        return wider, np.pad(faded, (0, more), constant_values=math.inf)

    # --- using ------------------------------------------------------------------------------------

    def recall(
        self,
        query: Vector | None,
        terms: Iterable[str],
        limit: int,
        now_s: float,
        terms_of: Callable[[str], Iterable[str]],
        *,
        use: bool = True,
    ) -> list[Recalled]:
        """Return the items that answer best, best first, and unless told otherwise count that as a use of each.

        The score is the cosine, or the share of the query's terms, or 0.7 of one and 0.3 of the other.
        """
        slots = self.slots
        if not len(slots) or limit <= 0:
            return []
        cosine = keyword = np.zeros(len(slots.held))
        if query is not None:
            cosine = (slots.vectors() @ widened(normalised(query[None, :]))[0]).astype(np.float64)
        wanted = frozenset(terms)
        if wanted:
            keyword = self._keyword(wanted, terms_of)
        if query is None or not wanted:
            score = cosine + keyword
        else:
            score = _SEMANTIC_SHARE * np.maximum(cosine, 0.0) + (1.0 - _SEMANTIC_SHARE) * keyword
        score = np.where(slots.kinds == 0, -math.inf, score)
        # Ties by order of admission: same items, same answer.
        best = np.lexsort((slots.ordinals, -score))[: min(limit, len(slots))]
        if use:
            self._use(best, now_s)
        items = slots.items(best.tolist(), slots.faded(now_s, self.rules))
        told = zip(items, score[best].tolist(), cosine[best].tolist(), keyword[best].tolist(), strict=True)
        return [Recalled(*each) for each in told]

    def use(self, item_ids: Iterable[str], long_term_ids: Iterable[str], now_s: float) -> int:
        """Count a use of these items and of those that became these memories, once each; return how many."""
        own, became = self.slots.by_id, self.slots.by_long_term
        used = {own[each] for each in item_ids if each in own}
        used.update(became[each] for each in long_term_ids if each in became)
        if used:
            self._use(np.array(sorted(used), np.intp), now_s)
        return len(used)

    def _use(self, used: NDArray[np.intp], now_s: float) -> None:
        slots = self.slots
        faded: Floats = slots.faded(now_s, self.rules)[used]
        slots.salience[used] = faded + self.rules.boost * (1.0 - faded)
        slots.since[used] = now_s
        slots.uses[used] += 1
        slots.used.update(used.tolist())
        self.touched_s = now_s

    def _keyword(self, wanted: frozenset[str], terms_of: Callable[[str], Iterable[str]]) -> Floats:
        slots = self.slots
        terms = sorted(wanted)
        holds = np.zeros((len(terms), len(slots.held)))
        for slot in slots.by_id.values():
            held = slots.at(slot)
            if held.terms is None:
                held.terms = frozenset(terms_of(held.text))
            if not wanted.isdisjoint(held.terms):
                holds[:, slot] = [term in held.terms for term in terms]
        weights = np.log1p(len(slots) / (1.0 + holds.sum(axis=1)))
        share: Floats = weights @ holds / weights.sum()
        return share

    # --- promotion --------------------------------------------------------------------------------

    def tick(self, now_s: float) -> list[Promotion]:
        """Count one tick and return the items that have now earned promotion and are not on their way yet."""
        slots = self.slots
        faded = slots.faded(now_s, self.rules)
        faded[slots.kinds == 0] = 0.0
        slots.streaks = next_streaks(slots.streaks, faded, self.rules)
        reason = HELD.format(ticks=self.rules.promotion_ticks)
        return self._promotions(earned(slots.streaks, self.rules).tolist(), faded, reason)

    def ask_promotion(self, item_ids: Iterable[str], now_s: float) -> list[Promotion]:
        """Return the named items that are not promoted yet, whatever their salience."""
        found = self.slots.by_id
        asked = [found[item_id] for item_id in dict.fromkeys(item_ids) if item_id in found]
        return self._promotions(asked, self.slots.faded(now_s, self.rules), ASKED)

    def promoted(self, item_id: str, long_term_id: str) -> None:
        """Take in what became of a promotion: the long-term id, or empty if it failed and may be tried again."""
        slot = self.slots.by_id.get(item_id)
        if slot is None:
            return
        held = self.slots.at(slot)
        held.promoting = False
        if long_term_id:
            self.slots.become(slot, long_term_id)
            self.slots.changed.add(slot)

    def is_hot(self, now_s: float) -> bool:
        """Return whether a tick matters: an item is salient enough, or has a streak to lose."""
        salient = (self.slots.faded(now_s, self.rules) >= self.rules.promotion) & (self.slots.kinds != 0)
        return bool(salient.any() or self.slots.streaks.any())

    def _promotions(self, candidates: list[int], faded: Floats, reason: str) -> list[Promotion]:
        fresh = [slot for slot in candidates if not (held := self.slots.at(slot)).long_term_id and not held.promoting]
        for slot in fresh:
            self.slots.at(slot).promoting = True
        return [Promotion(item, reason) for item in self.slots.items(fresh, faded)]

    # --- looking and changing ---------------------------------------------------------------------

    def items(self, now_s: float) -> list[Item]:
        """Return all items in the order of their admission."""
        slots = self.slots
        in_order = sorted(slots.by_id.values(), key=lambda slot: slots.ordinals[slot])
        return slots.items(in_order, slots.faded(now_s, self.rules))

    def found(self, item_ids: Iterable[str], now_s: float) -> dict[str, Item]:
        """Return those of the named items that are present, by id."""
        slots = self.slots
        present = {each: slots.by_id[each] for each in item_ids if each in slots.by_id}
        items = slots.items([*present.values()], slots.faded(now_s, self.rules)) if present else []
        return {item.item_id: item for item in items}

    def made_by(self, sequences: Iterable[int], now_s: float) -> dict[int, Item]:
        """Return the items that observations of these numbers made, as far as they are present."""
        wanted = np.isin(self.slots.sequences, [*sequences]) & (self.slots.kinds != 0)
        items = self.found((self.slots.at(slot).item_id for slot in np.flatnonzero(wanted).tolist()), now_s)
        return {item.sequence: item for item in items.values()}

    def drop_long_term(self, long_term_ids: Iterable[str]) -> list[str]:
        """Remove the items of forgotten memories; return their ids."""
        found = self.slots.by_long_term
        return [self.slots.clear(found[each]) for each in dict.fromkeys(long_term_ids) if each in found]

    def configure(self, rules: WorkingRules, now_s: float) -> list[str]:
        """Go on under other rules; return the ids of items for which there is no room any more."""
        slots = self.slots
        faded = slots.faded(now_s, self.rules)
        # What has faded so far has faded under the old rules.
        slots.salience = np.where(slots.kinds == 0, 0.0, faded)
        slots.since = np.full(len(slots.held), now_s)
        slots.used.update(slots.by_id.values())
        self.rules = rules
        evicted = []
        while len(slots) > rules.capacity:
            slot = slots.least(faded)
            faded[slot] = math.inf
            evicted.append(slots.clear(slot))
        return evicted

    def state(self) -> SessionState:
        """Return the whole session as it is written down."""
        items = tuple(self.slots.stored(sorted(self.slots.by_id.values())))
        return SessionState(self.session_id, self.last_sequence, self.touched_s, items, self.persona_id, self.epoch)

    @classmethod
    def restored(cls, state: SessionState, rules: WorkingRules, dimensions: int = 0) -> Session:
        """Return the session that was written down: same slots, order and salience."""
        if state.items:
            dimensions = len(state.items[0].vector) // 2
        session = cls(state.session_id, dimensions, rules)
        session.last_sequence = state.last_sequence
        session.touched_s = state.touched_s
        session.persona_id = state.persona_id
        session.epoch = state.epoch
        session.slots.restore(state.items)
        session._next_ordinal = 1 + max((item.ordinal for item in state.items), default=0)
        return session
