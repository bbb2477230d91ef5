"""Dates: spelled out in the keyword text, found in queries, matched against when a memory occurred."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FADE_DAYS = 7.0

_MONTH_NUMBER = {name.lower()[:width]: n for n, name in enumerate(MONTHS, 1) for width in (3, len(name))} | {"sept": 9}
_MONTH = "(?P<month>" + "|".join(sorted(_MONTH_NUMBER, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:19|20|21)\d\d)"
_BEFORE = r"\b(?:in|of|during|since|until|till|by|before|after|around|throughout|last|this|next|early|late|mid)[\s-]+"
_CALENDAR = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\b{_YEAR}-(?P<month>\d\d)-(?P<day>\d\d)\b",
        rf"\b(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.{_YEAR}\b",
        rf"\b(?P<month>\d{{1,2}})/(?P<day>\d{{1,2}})/{_YEAR}\b",
        rf"\b{_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+{_YEAR}\b)?",
        rf"\b{_MONTH}\s+{_DAY}\b(?:,?\s+{_YEAR}\b)?",
        rf"\b{_MONTH},?\s+(?:of\s+)?{_YEAR}\b",
        rf"{_BEFORE}{_MONTH}",
        rf"(?:{_BEFORE}|\byear\s+){_YEAR}\b",
    )
)
_AGO = re.compile(
    r"\b(?P<count>\d{1,3}|an?|one|two|three|four|five|six)\s+(?P<unit>day|week|month|year)s?\s+ago\b", re.IGNORECASE
)
_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_EPOCH = date(1970, 1, 1).toordinal()
_UNIT_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}


@dataclass(frozen=True, slots=True)
class DateMention:
    """A date as far as a query names it; at least one of year and month is set, a day only with its month."""

    year: int | None = None
    month: int | None = None
    day: int | None = None


def spelled_date(at: datetime) -> str:
    """Return the day of `at` in words, e.g. "8 May 2023 Monday", so that keyword search finds it."""
    return f"{at.day} {MONTHS[at.month - 1]} {at.year} {WEEKDAYS[at.weekday()]}"


def named_date(query: str, now: datetime | None = None) -> DateMention | None:
    """Return the first, most precise date `query` names, or None.

    Calendar dates are read in English and numeric spellings (2023-05-08, 8.5.2023, 5/8/2023 with the month first).
    With `now`, "today", "yesterday", "three weeks ago", "last month" and "last year" are read too.
    """
    for pattern in _CALENDAR:
        for match in pattern.finditer(query):
            mention = _mention(match)
            if mention is not None:
                return mention
    return None if now is None else _relative(query, now.date())


def date_match(mention: DateMention, occurred_at: NDArray[np.datetime64]) -> NDArray[np.float32]:
    """Return how well times agree with a named date, each in [0, 1], shape (n,); NaT gives 0.

    A named year or month must agree.  Around a named day the match fades to 0 over a week, because people tell of a
    day some days later.
    """
    days = occurred_at.astype("M8[D]")
    known = ~np.isnat(days)
    years = days.astype("M8[Y]").astype(np.int64) + 1970
    months = days.astype("M8[M]").astype(np.int64) % 12 + 1
    if mention.day is None or mention.month is None:
        agrees: NDArray[np.bool_] = known.copy()
        if mention.year is not None:
            agrees &= years == mention.year
        if mention.month is not None:
            agrees &= months == mention.month
        return agrees.astype(np.float32)
    numbers = days.astype(np.int64)
    # Without a year the nearest return of that day counts, also across New Year.
    seen = np.unique(years[known])
    candidates = [mention.year] if mention.year is not None else np.unique([seen - 1, seen, seen + 1]).tolist()
    distance = np.full(len(days), np.inf)
    for year in candidates:
        np.minimum(distance, np.abs(numbers - _day_number(year, mention.month, mention.day)), out=distance)
    return np.where(known, np.clip(1.0 - distance / FADE_DAYS, 0.0, 1.0), 0.0).astype(np.float32)


def _mention(match: re.Match[str]) -> DateMention | None:
    """Return the date of a calendar match, or None when there is no such date."""
    groups: dict[str, str | None] = {"year": None, "month": None, "day": None} | match.groupdict()
    year, day = (int(text) if (text := groups[name]) else None for name in ("year", "day"))
    word = groups["month"]
    month = None if word is None else int(word) if word.isdigit() else _MONTH_NUMBER[word.lower()]
    if month is None:
        return DateMention(year=year)
    if not 1 <= month <= 12:
        if day is None or not 1 <= day <= 12:
            return None
        month, day = day, month
    if day is not None:
        try:
            date(year if year is not None else 2000, month, day)
        except ValueError:
            return None
    return DateMention(year, month, day)


def _relative(query: str, today: date) -> DateMention | None:
    """Return the date of a phrase that counts back from `today`, or None."""
    text = query.lower()
    for phrase, count in (("day before yesterday", 2), ("yesterday", 1), ("last night", 1), ("today", 0)):
        if re.search(rf"\b{phrase}\b", text):
            return _on(today - timedelta(days=count))
    ago = _AGO.search(text)
    if ago is not None:
        count = _COUNTS.get(ago.group("count")) or int(ago.group("count"))
        unit = ago.group("unit")
        then = today - timedelta(days=count * _UNIT_DAYS[unit])
        return {"month": DateMention(then.year, then.month), "year": DateMention(then.year)}.get(unit, _on(then))
    if re.search(r"\blast month\b", text):
        then = today.replace(day=1) - timedelta(days=1)
        return DateMention(then.year, then.month)
    if re.search(r"\b(?:this|last) year\b", text):
        return DateMention(today.year - (re.search(r"\blast year\b", text) is not None))
    return None


def _on(day: date) -> DateMention:
    """Return the mention of one day."""
    return DateMention(day.year, day.month, day.day)


def _day_number(year: int, month: int, day: int) -> int:
    """Return days since 1970-01-01; the 29th of February of a common year counts as its last day."""
    try:
        there = date(year, month, day)
    except ValueError:
        there = date(year, month, day - 1)
    return there.toordinal() - _EPOCH
