"""A plan covers each session once, never spends more than the plan has, and says by when the credits allow an end."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barflow.errors import BadInputError
from barflow.market.sessions import BAR, Session, session, sessions_between
from barflow.pipeline.backfill import BackfillPlan, plan, simulate
from barflow.twelvedata.credits import Credits

NOW = datetime(2026, 11, 24, 20, 0, 30, tzinfo=UTC)  # Tuesday, 15:00 in New York
BASIC: dict[str, Any] = {"credits_per_minute": 8, "credits_per_day": 800, "now": NOW, "batch_size": 8}


def planned(first: str, last: str, symbols: int = 1, **changes: Any) -> BackfillPlan:
    names = [f"S{n}" for n in range(symbols)]
    return plan(names, date.fromisoformat(first), date.fromisoformat(last), **BASIC | changes)


def traded(day: str) -> Session:
    found = session(date.fromisoformat(day))
    assert found is not None
    return found


class TestChunks:
    def test_a_short_range_is_one_from_the_first_bar_to_the_last(self) -> None:
        assert planned("2025-07-02", "2025-07-06").chunks == [
            (traded("2025-07-02").opens, traded("2025-07-03").slots[-1])
        ]

    def test_a_half_day_ends_early(self) -> None:
        [(_, end)] = planned("2025-07-03", "2025-07-03").chunks
        assert end == datetime(2025, 7, 3, 16, 55, tzinfo=UTC)

    def test_64_whole_sessions_fit_into_one_answer(self) -> None:
        days = [item.session_date for item in sessions_between(date(2025, 1, 10), date(2025, 6, 30))]
        assert len(planned(str(days[0]), str(days[63])).chunks) == 1
        assert len(planned(str(days[0]), str(days[64])).chunks) == 2

    def test_today_ends_with_the_bar_that_is_open(self) -> None:
        [(_, end)] = planned("2026-11-24", "2026-11-24").chunks
        assert end == datetime(2026, 11, 24, 20, 0, tzinfo=UTC)
        assert planned("2026-11-24", "2026-11-24").bars == 67

    @given(st.integers(0, 6000), st.integers(0, 2500))
    def test_they_cover_every_session_once_in_order_and_each_fits_into_an_answer(self, start: int, length: int) -> None:
        first = date(2008, 1, 2) + timedelta(days=start)
        last = first + timedelta(days=length)
        wanted = sessions_between(first, min(last, NOW.date()))
        if not wanted or last > NOW.date():
            return
        found = plan(["AAPL"], first, last, **BASIC)
        covered: list[Session] = []
        for opens, ends in found.chunks:
            part = sessions_between(opens.date(), ends.date())
            assert opens == part[0].opens
            assert ends == min(part[-1].slots[-1], NOW.replace(second=0))
            assert sum(item.expected_bars for item in part) <= 5000
            covered += part
        assert covered == wanted
        assert found.sessions == len(wanted)


class TestCosts:
    def test_one_chunk_of_one_symbol_is_one_call_in_this_minute(self) -> None:
        found = planned("2026-11-02", "2026-11-20")
        assert (found.calls, found.credits, found.minutes, found.days) == (1, 1, 1, 1)
        assert found.finishes_at == datetime(2026, 11, 24, 20, 1, tzinfo=UTC)

    def test_a_year_of_five_symbols_on_the_basic_plan(self) -> None:
        found = planned("2025-01-02", "2025-12-31", symbols=5)
        assert (found.sessions, len(found.chunks), found.bars) == (250, 4, 5 * (250 * 78 - 3 * 36))
        # One credit for each first bar and 3, then 2 + 5 + 1, 4 + 4, and 1.
        assert (found.calls, found.credits, found.minutes) == (12, 25, 4)
        assert found.finishes_at == datetime(2026, 11, 24, 20, 4, tzinfo=UTC)

    def test_a_day_s_credits_end_at_midnight_utc(self) -> None:
        found = planned("2026-11-02", "2026-11-20", symbols=20, credits_per_day=12)
        assert (found.calls, found.credits, found.minutes, found.days) == (3, 20, 3, 2)
        assert found.finishes_at == datetime(2026, 11, 25, 0, 1, tzinfo=UTC)

    def test_a_day_too_short_for_its_credits_ends_with_the_minutes(self) -> None:
        now = datetime(2026, 11, 24, 23, 58, 30, tzinfo=UTC)
        found = planned("2026-11-02", "2026-11-20", symbols=20, now=now)
        assert found.finishes_at == datetime(2026, 11, 25, 0, 1, tzinfo=UTC)
        assert found.days == 2

    def test_without_a_daily_cap_only_minutes_count(self) -> None:
        found = planned("2026-11-02", "2026-11-20", symbols=1000, credits_per_day=None)
        assert (found.minutes, found.days) == (125, 1)

    def test_a_batch_is_at_most_the_vendor_s_largest(self) -> None:
        large = planned("2026-11-20", "2026-11-20", symbols=500, credits_per_minute=2584, batch_size=500)
        assert (large.calls, large.minutes) == (5, 1)

    def test_a_long_chunk_is_asked_for_in_more_and_smaller_calls(self) -> None:
        long = planned("2026-09-01", "2026-11-20", symbols=500, credits_per_minute=2584, batch_size=500)
        assert (long.calls, long.credits, long.minutes) == (56, 500, 1)


@given(
    symbols=st.integers(1, 60),
    batch_sizes=st.lists(st.integers(1, 120), min_size=1, max_size=12),
    per_minute=st.integers(1, 60),
    per_day=st.one_of(st.none(), st.integers(1, 200)),
    seconds=st.integers(0, 86_399),
)
def test_no_minute_and_no_day_is_ever_overspent_or_wasted(
    symbols: int, batch_sizes: list[int], per_minute: int, per_day: int | None, seconds: int
) -> None:
    now = NOW.replace(hour=0, minute=0, second=0) + timedelta(seconds=seconds)
    calls = list(simulate(symbols, batch_sizes, Credits(per_minute, per_day), now))
    assert sum(count for _, count in calls) == symbols * len(batch_sizes)
    assert max(count for _, count in calls) <= min(max(batch_sizes), per_minute, symbols)
    assert [at for at, _ in calls] == sorted(at for at, _ in calls)
    assert calls[0][0] == now
    minutes, days = Counter[datetime](), Counter[date]()
    for at, count in calls:
        minutes[at.replace(second=0)] += count
        days[at.date()] += count
    assert max(minutes.values()) <= per_minute
    assert per_day is None or max(days.values()) <= per_day
    for minute, spent in [*minutes.items()][:-1]:  # all but the last are used up, or end with their day's credits
        assert spent == per_minute or days[minute.date()] == per_day


class TestWhatCannotBePlanned:
    @pytest.mark.parametrize(
        ("first", "last", "says"),
        [
            ("2025-07-03", "2025-07-02", "2025-07-03 to 2025-07-02 is reversed"),
            ("2026-11-20", "2026-11-25", "2026-11-25 is in the future: the last day that can be fetched is 2026-11-24"),
            ("2025-07-04", "2025-07-06", "no session has opened from 2025-07-04 to 2025-07-06.*before is 2025-07-03"),
            ("1990-01-02", "2025-07-02", "no exchange calendar for 1990-01-02: the table covers 20.* to 20"),
        ],
    )
    def test_is_said_with_what_is_allowed(self, first: str, last: str, says: str) -> None:
        with pytest.raises(BadInputError, match=says) as error:
            planned(first, last)
        assert error.value.exit_code == 2

    def test_today_before_the_open_is_nothing_yet(self) -> None:
        early = traded("2026-11-24").opens - timedelta(seconds=1)
        with pytest.raises(BadInputError, match="The session before is 2026-11-23"):
            planned("2026-11-24", "2026-11-24", now=early)
        assert planned("2026-11-23", "2026-11-24", now=early).last == date(2026, 11, 23)
        assert planned("2026-11-24", "2026-11-24", now=early + timedelta(seconds=1)).bars == 1

    def test_no_symbols_is_bad_input(self) -> None:
        with pytest.raises(BadInputError, match="no symbols"):
            planned("2025-07-02", "2025-07-02", symbols=0)


class TestWhatIsPrinted:
    def test_for_a_script(self) -> None:
        found = planned("2025-07-02", "2025-07-03", symbols=2)
        assert json.loads(json.dumps(found.to_json())) == {
            "symbols": ["S0", "S1"],
            "first": "2025-07-02",
            "last": "2025-07-03",
            "sessions": 2,
            "bars": 240,
            "chunks": [["2025-07-02T13:30:00+00:00", "2025-07-03T16:55:00+00:00"]],
            "calls": 1,
            "credits": 2,
            "minutes": 1,
            "days": 1,
            "starts_at": "2026-11-24T20:00:30+00:00",
            "finishes_at": "2026-11-24T20:01:00+00:00",
            "credits_per_minute": 8,
            "credits_per_day": 800,
        }

    def test_for_a_person(self) -> None:
        assert planned("2025-01-02", "2025-12-31", symbols=5).describe().splitlines() == [
            "5 symbols, 250 sessions from 2025-01-02 to 2025-12-31: up to 96,960 bars",
            "12 calls for 25 credits, in 4 chunks of whole sessions",
            "4 minutes of calls at 8 credits a minute and 800 a day",
            "the credits allow it to finish by 2026-11-24 20:04 UTC",
            "One credit per symbol asks for its first bar: sessions before it are not asked for.",
            "Sessions that are stored or were answered before are not fetched again, so it may take less.",
        ]

    def test_for_a_person_when_it_takes_several_days(self) -> None:
        text = planned("2026-11-02", "2026-11-20", symbols=20, credits_per_day=12).describe()
        assert "8 credits a minute and 12 a day" in text
        assert "calls on 2 UTC days: it stops when a day's credits are used up" in text
        assert "1 chunk of" in planned("2026-11-02", "2026-11-20", credits_per_day=None).describe()
        assert "no daily cap" in planned("2026-11-02", "2026-11-20", credits_per_day=None).describe()


def test_a_chunk_s_end_is_a_bar_s_open() -> None:
    [(opens, ends)] = planned("2025-07-02", "2025-07-02").chunks
    assert ends == traded("2025-07-02").closes - BAR
    assert (ends - opens) // BAR == 77
