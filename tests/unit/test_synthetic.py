"""Synthetic sessions are repeatable, connect from day to day, and look like a market."""

from __future__ import annotations

import statistics
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barflow.market.sessions import Session, session, sessions_between
from emulators.twelvedata.bar_source import Row
from local.synthetic import SyntheticBars

MARKET = SyntheticBars(seed=7)
SESSIONS = sessions_between(date(2024, 1, 1), date(2026, 12, 31))
a_session = st.sampled_from(SESSIONS)
a_symbol = st.from_regex(r"[A-Z]{1,5}", fullmatch=True).filter(MARKET.knows)


def bars_of(found: Session, symbol: str = "AAPL", market: SyntheticBars = MARKET) -> list[Row]:
    return market.rows(symbol, found.opens, found.closes)


def change(before: str | None, after: str | None) -> float:
    assert before is not None
    assert after is not None
    return float(after) / float(before) - 1


@given(a_session, a_symbol)
@settings(max_examples=60, deadline=None)
def test_every_bar_is_consistent_and_on_the_calendar_grid(found: Session, symbol: str) -> None:
    rows = bars_of(found, symbol)
    assert [row[0] for row in rows] == list(found.slots)
    for _, open_, high, low, close, volume in rows:
        assert 0 < float(low) <= min(float(open_), float(close))
        assert float(high) >= max(float(open_), float(close))
        assert int(volume) > 0


@given(a_session, st.integers(0, 90), st.integers(0, 90), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_a_bar_does_not_depend_on_the_requested_range(found: Session, skip: int, drop: int, days: int) -> None:
    start = found.opens + timedelta(minutes=5 * skip)
    end = found.closes + timedelta(days=days) - timedelta(minutes=5 * drop)
    alone = SyntheticBars(seed=7, cached_sessions=1)
    inside = [row for row in MARKET.rows("MSFT", start, end) if row[0] < found.closes]
    assert inside == [row for row in bars_of(found, "MSFT", alone) if start <= row[0] < end]


def test_another_seed_or_symbol_is_another_market() -> None:
    day = SESSIONS[100]
    assert bars_of(day) == bars_of(day, market=SyntheticBars(seed=7))
    assert bars_of(day) != bars_of(day, market=SyntheticBars(seed=8))
    assert bars_of(day) != bars_of(day, "MSFT")


def test_prices_connect_from_session_to_session_with_a_rare_large_gap() -> None:
    gaps = []
    for symbol in ("AAPL", "TSLA", "NVDA"):
        days = [bars_of(found, symbol) for found in SESSIONS]
        gaps += [abs(change(a[-1][4], b[0][1])) for a, b in pairwise(days)]
    assert 0.002 < statistics.median(gaps) < 0.01
    assert max(gaps) < 0.15
    assert 0.005 < sum(gap > 0.05 for gap in gaps) / len(gaps) < 0.03


def test_prices_stay_plausible_over_years() -> None:
    for symbol in ("AAPL", "XOM", "KO", "BRK.B"):
        closes = [float(bars_of(found, symbol)[-1][4] or 0) for found in SESSIONS[::20]]
        assert min(closes) > 5
        assert max(closes) < 3000
        assert max(closes) / min(closes) < 6


def test_volume_is_highest_at_the_open_and_at_the_close() -> None:
    volumes = [[int(row[5] or 0) for row in bars_of(found)] for found in SESSIONS[:60] if found.expected_bars == 78]
    by_slot = [statistics.mean(day[slot] for day in volumes) for slot in range(78)]
    noon = statistics.mean(by_slot[33:45])
    assert statistics.mean(by_slot[:6]) > 2 * noon
    assert statistics.mean(by_slot[-6:]) > 2 * noon


def test_a_half_day_ends_early_and_a_holiday_has_no_bars() -> None:
    half_day = session(date(2025, 7, 3))
    assert half_day is not None
    rows = bars_of(half_day)
    assert len(rows) == 42
    assert rows[-1][0] == datetime(2025, 7, 3, 16, 55, tzinfo=UTC)
    holiday = datetime(2025, 7, 4, tzinfo=UTC)
    assert MARKET.rows("AAPL", holiday, holiday + timedelta(days=1)) == []


def test_sessions_follow_new_york_over_a_dst_change() -> None:
    opens = {row[0].time() for row in MARKET.rows("AAPL", *_days(date(2025, 3, 7), date(2025, 3, 11)))[::78]}
    assert {f"{moment:%H:%M}" for moment in opens} == {"14:30", "13:30"}


def test_price_text_looks_like_twelve_datas() -> None:
    prices = [text for row in bars_of(SESSIONS[3]) for text in row[1:5] if text]
    decimals = [len(text.partition(".")[2]) for text in prices]
    assert set(decimals) == {2, 5, 6, 7}
    assert statistics.mode(decimals) == 5
    assert any(text[-1] not in "0" and len(text.partition(".")[2]) == 5 for text in prices), "float32 noise"
    assert all(len(text.replace(".", "")) <= 15 for text in prices), "lossless as a double"


@pytest.mark.parametrize("symbol", ["AAPL", "BRK.B", "S123", "EUR/USD"])
def test_any_well_formed_symbol_is_known(symbol: str) -> None:
    assert MARKET.knows(symbol)


@pytest.mark.parametrize("symbol", ["UNKNOWN", "UNKNOWN7", "BAD", "BADCO", "", "AA PL", "aapl", "A" * 25, "A,B"])
def test_a_malformed_symbol_or_one_that_starts_with_unknown_or_bad_has_no_bars(symbol: str) -> None:
    assert not MARKET.knows(symbol)
    assert bars_of(SESSIONS[0], symbol) == []


def test_it_follows_the_clock_and_describes_itself() -> None:
    assert MARKET.as_of is None
    assert MARKET.first == datetime(2008, 1, 2, 14, 30, tzinfo=UTC)
    assert "seed 7" in MARKET.describe


def _days(first: date, last: date) -> tuple[datetime, datetime]:
    midnight = datetime.min.time()
    return datetime.combine(first, midnight, UTC), datetime.combine(last, midnight, UTC)
