"""An import whose connection is cut and whose server is killed stores every record once, and says which were wrong."""

from __future__ import annotations

import pytest

from soma_client import importer
from soma_client.source_feed import SourceFeed
from tests.adversity.stack.broken_imports import broken_import
from tests.adversity.stack.test_killed_while_writing import own_office
from tests.support.stack import Office

__all__ = ["own_office"]

pytestmark = [pytest.mark.processes]


async def test_an_import_cut_and_killed_again_and_again_is_stored_exactly_once(own_office: Office) -> None:
    happened, verdict = await broken_import(own_office, 1_000, cuts=6, kills=1, chunk_records=20)
    assert verdict.holds, verdict
    assert (6, 1, 990, 10) == (happened.cuts, happened.kills, happened.stored, happened.refused)
    assert happened.reconnects >= 4


class Forgetful(SourceFeed):
    """A feed with the mistake of taking what was sent for stored: after a break it goes on behind it."""

    async def rewind(self, committed_offset: int) -> None:
        """Give the place of what was sent and not stored to what follows."""
        if self._reading is not None:
            await self._read_on()
        lost = len(self._unacknowledged)
        self._unacknowledged.clear()
        await super().rewind(committed_offset)
        if lost:
            self._next = type(self._next)(committed_offset, self._next.at)


async def test_a_feed_that_forgets_what_was_not_stored_is_found_out(
    own_office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "SourceFeed", Forgetful)
    _, verdict = await broken_import(own_office, 300, cuts=2, kills=0, chunk_records=10)
    assert verdict.missing
    assert not verdict.holds
