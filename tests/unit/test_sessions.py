"""The sessions match exchange_calendars: holidays, half days and both changes of daylight saving time."""

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
    parse_slot,
    parse_slots,
    previous_session,
    session,
    session_at,
    sessions_between,
)


def test_every_session_of_the_table_matches_exchange_calendars() -> None:
    calendar = exchange_calendars.get_calendar("XNYS", start="2008-01-01", end="2031-12-31")
    expected = [
        (day.date(), opens.to_pydatetime(), closes.to_pydatetime())
        for day, opens, closes in zip(
            calendar.schedule.index, calendar.schedule["open"], calendar.schedule["close"], strict=True
        )
    ]
    found = [
        (item.session_date, item.opens, item.closes) for item in sessions_between(date(2008, 1, 1), date(2031, 12, 31))
    ]
    assert found == expected


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
def test_hours_follow_half_days_and_daylight_saving_time(day: date, bars: int, opens: str) -> None:
    found = session(day)
    assert found is not None
    assert found.expected_bars == bars == len(found.slots) == len(found.slot_by_text)
    assert f"{found.opens:%H:%M}" == opens
    assert f"{new_york(found.opens):%H:%M}" == "09:30"


def test_the_exchange_is_closed_on_weekends_and_holidays() -> None:
    assert session(date(2025, 7, 4)) is None
    assert session(date(2025, 7, 5)) is None
    assert session(date(2025, 12, 25)) is None


def test_a_year_outside_the_table_raises() -> None:
    with pytest.raises(BadInputError, match="covers 2008 to 2031"):
        session(date(2040, 1, 3))


def test_the_last_twenty_sessions_up_to_the_end_of_july() -> None:
    found = last_sessions(datetime(2025, 7, 30, 20, 0, tzinfo=UTC), 20)
    assert [found[0].session_date, found[-1].session_date, len(found)] == [date(2025, 7, 2), date(2025, 7, 30), 20]


def test_a_session_is_the_newest_from_its_open_on() -> None:
    before = last_sessions(datetime(2025, 7, 30, 13, 29, tzinfo=UTC), 1)[0]
    after = last_sessions(datetime(2025, 7, 30, 13, 30, tzinfo=UTC), 1)[0]
    assert (before.session_date, after.session_date) == (date(2025, 7, 29), date(2025, 7, 30))


def test_previous_session_counts_sessions_and_not_days() -> None:
    found = previous_session(date(2025, 7, 7), 2)
    assert found is not None
    assert found.session_date == date(2025, 7, 2)
    assert previous_session(date(2008, 1, 2)) is None


def test_the_market_is_closed_from_the_moment_of_the_close() -> None:
    half_day_close = datetime(2025, 7, 3, 17, 0, tzinfo=UTC)
    assert session_at(half_day_close - timedelta(seconds=1)) is not None
    assert session_at(half_day_close) is None


def test_buckets_count_from_the_sessions_open() -> None:
    found = session(date(2025, 7, 2))
    assert found is not None
    assert [f"{new_york(found.bucket_start(ts, 60)):%H:%M}" for ts in found.slots][::12] == [
        "09:30", "10:30", "11:30", "12:30", "13:30", "14:30", "15:30",
    ]  # fmt: skip


def test_a_naive_datetime_raises() -> None:
    with pytest.raises(ValueError, match="naive"):
        new_york(datetime(2025, 7, 2))


def test_the_calendar_needs_no_pandas() -> None:
    import subprocess

    code = "import sys, barflow.market.validation; print([m for m in ('pandas', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(found.stdout) == []


def test_only_the_texts_of_a_sessions_bars_are_parsed_as_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barflow.market.sessions.MAX_CACHED_SLOTS", 200)  # so that the cache is cleared in between
    days = sessions_between(date(2025, 6, 25), date(2025, 7, 9))
    for traded in [*days, *days]:
        texts = [f"{slot:%Y-%m-%d %H:%M:%S}" for slot in traded.slots]
        assert parse_slots(texts) == list(traded.slots)
        assert parse_slot(texts[-1]) == traded.slots[-1]
    for other in ("2025-07-04 13:30:00", "2025-07-02 13:31:00", "2025-07-02", "1990-01-02 14:30:00", "", None, 5, []):
        assert parse_slot(other) is None
