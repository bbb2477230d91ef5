"""Sessions that go from one brain to another."""

from __future__ import annotations

from dataclasses import replace

from brain_server.domain.item import SessionState


def compacted(state: SessionState) -> SessionState:
    """Return the same session in slots 0, 1, 2 …, as another brain takes it over."""
    in_order = sorted(state.items, key=lambda item: item.ordinal)
    return replace(state, items=tuple(item._replace(slot=slot) for slot, item in enumerate(in_order)))


def merged(theirs: SessionState, ours: SessionState, capacity: int) -> SessionState:
    """Return one session of what another brain left and what this one took in, not knowing of it, meanwhile.

    Theirs comes first; beyond the capacity the least salient items go.
    """
    known = {item.item_id for item in theirs.items}
    last = max((item.ordinal for item in theirs.items), default=0)
    items = [*theirs.items]
    items += [item._replace(ordinal=last + item.ordinal) for item in ours.items if item.item_id not in known]
    items.sort(key=lambda item: (-item.salience, item.ordinal))
    merging = replace(
        theirs,
        last_sequence=max(theirs.last_sequence, ours.last_sequence),
        touched_s=max(theirs.touched_s, ours.touched_s),
        items=tuple(items[:capacity]),
        persona_id=ours.persona_id or theirs.persona_id,
    )
    return compacted(merging)
