"""The text that keyword search sees of a memory."""

from __future__ import annotations

from datetime import datetime

from soma_contract.text.dates import spelled_date


def keyword_text(actor: str, text: str, occurred_at: datetime | None = None) -> str:
    """Return actor, text and spelled date in one string, for the index and for stored term counts.

    Names and dates live here and in fields of their own, never in the embedded text: there they make every turn of
    one speaker look alike.
    """
    parts = (actor, text, spelled_date(occurred_at) if occurred_at is not None else "")
    return " ".join(part for part in parts if part)
