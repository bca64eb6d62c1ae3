"""The sessions are the exchange's: holidays, half days and both clock changes, against the calendar they came from."""

from __future__ import annotations

import ast
import sys
from datetime import UTC, date, datetime, timedelta

import exchange_calendars
import pytest

from barflow.errors import BadInputError
from barflow.market.sessions import (
    last_sessions,
    new_york,
    previous_session,
    session,
    session_at,
    sessions_between,
    slot_named,
    slots_named,
)


def test_every_session_of_the_table_is_the_calendars() -> None:
    calendar = exchange_calendars.get_calendar("XNYS", start="2008-01-01", end="2031-12-31")
    theirs = [
        (day.date(), opens.to_pydatetime(), closes.to_pydatetime())
        for day, opens, closes in zip(
            calendar.schedule.index, calendar.schedule["open"], calendar.schedule["close"], strict=True
        )
    ]
    ours = [
        (found.session_date, found.opens, found.closes)
        for found in sessions_between(date(2008, 1, 1), date(2031, 12, 31))
    ]
    assert ours == theirs


@pytest.mark.parametrize(
    ("day", "bars", "opens"),
    [
        (date(2025, 7, 2), 78, "13:30"),
        (date(2025, 7, 3), 42, "13:30"),
        (date(2025, 11, 28), 42, "14:30"),
        (date(2025, 10, 31), 78, "13:30"),
        (date(2025, 11, 3), 78, "14:30"),
        (date(2026, 3, 6), 78, "14:30"),
        (date(2026, 3, 9), 78, "13:30"),
    ],
)
def test_a_session_has_its_own_hours(day: date, bars: int, opens: str) -> None:
    found = session(day)
    assert found is not None
    assert found.expected_bars == bars == len(found.slots) == len(found.slot_by_text)
    assert f"{found.opens:%H:%M}" == opens
    assert f"{new_york(found.opens):%H:%M}" == "09:30"


def test_the_exchange_is_closed_on_weekends_and_holidays() -> None:
    assert session(date(2025, 7, 4)) is None
    assert session(date(2025, 7, 5)) is None
    assert session(date(2025, 12, 25)) is None


def test_a_year_outside_the_table_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(BadInputError, match="covers 2008 to 2031"):
        session(date(2040, 1, 3))


def test_the_past_twenty_sessions_of_the_recorded_july() -> None:
    found = last_sessions(datetime(2025, 7, 30, 20, 0, tzinfo=UTC), 20)
    assert [found[0].session_date, found[-1].session_date, len(found)] == [date(2025, 7, 2), date(2025, 7, 30), 20]


def test_a_session_counts_from_its_open_and_not_from_midnight() -> None:
    before = last_sessions(datetime(2025, 7, 30, 13, 29, tzinfo=UTC), 1)[0]
    after = last_sessions(datetime(2025, 7, 30, 13, 30, tzinfo=UTC), 1)[0]
    assert (before.session_date, after.session_date) == (date(2025, 7, 29), date(2025, 7, 30))


def test_going_back_counts_sessions_and_not_days() -> None:
    found = previous_session(date(2025, 7, 7), 2)
    assert found is not None
    assert found.session_date == date(2025, 7, 2)
    assert previous_session(date(2008, 1, 2)) is None


def test_the_market_is_open_from_the_open_to_just_before_the_close() -> None:
    half_day_close = datetime(2025, 7, 3, 17, 0, tzinfo=UTC)
    assert session_at(half_day_close - timedelta(seconds=1)) is not None
    assert session_at(half_day_close) is None


def test_buckets_count_from_the_session_open() -> None:
    found = session(date(2025, 7, 2))
    assert found is not None
    assert [f"{new_york(found.bucket_start(ts, 60)):%H:%M}" for ts in found.slots][::12] == [
        "09:30", "10:30", "11:30", "12:30", "13:30", "14:30", "15:30",
    ]  # fmt: skip


def test_a_naive_moment_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        new_york(datetime(2025, 7, 2))


def test_the_calendar_needs_no_pandas() -> None:
    import subprocess

    code = "import sys, barflow.market.validation; print([m for m in ('pandas', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(found.stdout) == []


def test_every_bar_is_known_by_its_text_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barflow.market.sessions.MOST_SLOTS", 200)  # so that some are forgotten, and found again
    days = sessions_between(date(2025, 6, 25), date(2025, 7, 9))
    for traded in [*days, *days]:
        texts = [f"{slot:%Y-%m-%d %H:%M:%S}" for slot in traded.slots]
        assert slots_named(texts) == list(traded.slots)
        assert slot_named(texts[-1]) == traded.slots[-1]
    for other in ("2025-07-04 13:30:00", "2025-07-02 13:31:00", "2025-07-02", "1990-01-02 14:30:00", "", None, 5, []):
        assert slot_named(other) is None
