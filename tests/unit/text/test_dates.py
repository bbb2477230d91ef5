"""Dates in queries, and how well memories agree with them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soma_contract.text import DateMention, date_match, named_date, spelled_date
from soma_contract.text.dates import MONTHS

_DAYS = st.dates(date(1971, 1, 1), date(2199, 12, 31))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("What happened on 8 May 2023?", DateMention(2023, 5, 8)),
        ("on the 8th of May, 2023", DateMention(2023, 5, 8)),
        ("on May 8th, 2023", DateMention(2023, 5, 8)),
        ("2023-05-08", DateMention(2023, 5, 8)),
        ("8.5.2023", DateMention(2023, 5, 8)),
        ("5/8/2023", DateMention(2023, 5, 8)),
        ("31/12/2023", DateMention(2023, 12, 31)),
        ("31 Dec 2023", DateMention(2023, 12, 31)),
        ("in August 2023", DateMention(2023, 8)),
        ("in June", DateMention(None, 6)),
        ("on 18 March", DateMention(None, 3, 18)),
        ("during 2023", DateMention(2023)),
        ("30 February 2023", DateMention(2023, 2)),
        ("on 45.13.2023", None),
        ("may I march on", None),
        ("I ran 2023 metres", None),
        ("yesterday", None),
    ],
)
def test_calendar_dates_are_read(query: str, expected: DateMention | None) -> None:
    assert expected == named_date(query)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("what did I do yesterday", DateMention(2024, 3, 14)),
        ("two weeks ago", DateMention(2024, 3, 1)),
        ("a month ago", DateMention(2024, 2)),
        ("last month", DateMention(2024, 2)),
        ("last year", DateMention(2023)),
        ("on 1 May 2023, not yesterday", DateMention(2023, 5, 1)),
    ],
)
def test_relative_dates_count_back_from_now(query: str, expected: DateMention) -> None:
    assert expected == named_date(query, datetime(2024, 3, 15, 12, tzinfo=UTC))


def _at(*days: date) -> np.ndarray[tuple[int], np.dtype[np.datetime64]]:
    return np.array([day.isoformat() for day in days], dtype="M8[us]")


@given(_DAYS)
def test_a_spelled_date_is_read_back(day: date) -> None:
    at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    assert named_date(spelled_date(at)) == DateMention(day.year, day.month, day.day)
    assert MONTHS[day.month - 1] in spelled_date(at)


@given(_DAYS, st.integers(min_value=-400, max_value=400))
def test_a_named_day_matches_itself_fully_and_fades_over_a_week(day: date, shift: int) -> None:
    match = date_match(DateMention(day.year, day.month, day.day), _at(day, day + timedelta(days=shift)))
    assert match[0] == 1.0
    assert match[1] == pytest.approx(max(0.0, 1 - abs(shift) / 7))


@given(_DAYS, _DAYS)
def test_a_named_month_must_agree_in_year_and_month(named: date, other: date) -> None:
    match = date_match(DateMention(named.year, named.month), _at(other))
    assert match.tolist() == [float((named.year, named.month) == (other.year, other.month))]


@given(_DAYS, _DAYS)
def test_a_month_without_a_year_matches_any_year(named: date, other: date) -> None:
    assert date_match(DateMention(month=named.month), _at(other)).tolist() == [float(named.month == other.month)]


def test_a_day_without_a_year_is_near_across_new_year() -> None:
    match = date_match(DateMention(month=12, day=31), _at(date(2024, 1, 2)))
    assert match[0] == pytest.approx(1 - 2 / 7)


def test_the_leap_day_is_near_in_common_years() -> None:
    assert date_match(DateMention(month=2, day=29), _at(date(2023, 2, 28)))[0] == 1.0


def test_an_unknown_time_matches_no_date() -> None:
    unknown = np.array(["NaT", "2023-05-08"], dtype="M8[us]")
    assert date_match(DateMention(2023, 5, 8), unknown).tolist() == [0.0, 1.0]
    assert date_match(DateMention(2023), unknown).tolist() == [0.0, 1.0]
