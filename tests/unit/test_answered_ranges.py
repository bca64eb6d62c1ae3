"""Ranges of answered sessions: merged, they hold the same sessions in as few ranges as possible."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from barflow.market.sessions import session, sessions_between
from barflow.staging.requests import Answered, Range, closed_sessions, merged, without

DAYS = [item.session_date for item in sessions_between(date(2025, 6, 2), date(2025, 7, 31))]
ASKED = datetime(2025, 8, 1, tzinfo=UTC)


@st.composite
def ranges(draw: st.DrawFn) -> list[Range]:
    places = draw(st.lists(st.tuples(st.integers(0, len(DAYS) - 1), st.integers(0, 9), st.integers(0, 5)), max_size=9))
    return [
        Range(DAYS[first], DAYS[min(first + length, len(DAYS) - 1)], ASKED + timedelta(days=age))
        for first, length, age in places
    ]


def held(found: list[Range]) -> set[date]:
    return {day for day in DAYS if Answered(found).includes(day)}


@given(ranges())
def test_merged_ranges_hold_the_same_sessions_and_do_not_touch(found: list[Range]) -> None:
    joined = merged(found)
    assert held(joined) == held(found)
    starts = [day for day, before in zip(DAYS, [None, *DAYS], strict=False) if {day, before} & held(found) == {day}]
    assert [item.first for item in joined] == starts
    assert merged(joined) == joined
    for item in joined:
        inside = [part.requested_at for part in found if item.first <= part.first <= item.last]
        assert item.requested_at == min(inside)


@given(ranges(), st.integers(0, len(DAYS) - 1), st.integers(0, 20))
def test_what_is_forgotten_is_in_no_range_and_the_rest_is(found: list[Range], first: int, length: int) -> None:
    forgotten = DAYS[first : first + length + 1]
    left = without(merged(found), forgotten[0], forgotten[-1])
    assert held(left) == held(found) - set(forgotten)


def test_a_session_counts_from_its_close_on_and_when_it_is_asked_for_whole() -> None:
    day = session(date(2025, 7, 3))  # a half day
    assert day is not None
    [start, end] = day.opens, day.slots[-1]
    second = timedelta(seconds=1)
    assert closed_sessions(start, end, day.closes) == [day]
    assert closed_sessions(start, day.closes, day.closes) == [day]
    assert closed_sessions(start, end, day.closes - second) == []
    assert closed_sessions(start + second, end, ASKED) == []
    assert closed_sessions(start, end - second, ASKED) == []
