"""Synthetic sessions are repeatable, connect from day to day, and look like a market."""

from __future__ import annotations

import json
import statistics
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barflow.market.sessions import Session, session, sessions_between
from emulators.twelvedata.actions import ScriptedDividend, ScriptedSplit
from emulators.twelvedata.bar_source import Row
from emulators.twelvedata.script import MarketScript, Rename
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


EX_DATE = date(2025, 6, 10)
SCRIPTS = {
    "10-for-1": ScriptedSplit(EX_DATE, 10),
    "1-for-8": ScriptedSplit(EX_DATE, 1, 8),
    "spin-off": ScriptedSplit(EX_DATE, 1281, 1000),
}


@pytest.mark.parametrize("split", SCRIPTS.values(), ids=SCRIPTS)
def test_a_scripted_split_changes_only_the_bars_before_its_ex_date(split: ScriptedSplit) -> None:
    ratio = split.new / split.old
    market = SyntheticBars(seed=7, script=MarketScript(splits={"AAPL": [split]}))
    for found in sessions_between(EX_DATE - timedelta(days=7), EX_DATE + timedelta(days=7)):
        assert bars_of(found, "MSFT", market) == bars_of(found, "MSFT")
        plain, scripted = bars_of(found), bars_of(found, market=market)
        if found.session_date >= EX_DATE:
            assert scripted == plain
            continue
        for before, after in zip(plain, scripted, strict=True):
            assert after[0] == before[0]
            for one, other in zip(before[1:5], after[1:5], strict=True):
                assert float(other or 0) == pytest.approx(float(one or 0) * ratio, abs=0.006 * (1 + ratio), rel=1e-6)
            assert int(after[5] or 0) == pytest.approx(int(before[5] or 0) / ratio, abs=1 + 1 / ratio)


def test_bars_follow_the_split_that_is_right_in_the_end() -> None:
    """The vendor shows a wrong split and then the right one, and for a while one that never happened."""
    learned = datetime(2025, 6, 11, tzinfo=UTC)
    wrong, right = ScriptedSplit(EX_DATE, 8, withdrawn=learned), ScriptedSplit(EX_DATE, 10, learned=learned)
    never = ScriptedSplit(date(2025, 6, 5), 3, withdrawn=learned)
    changed = SyntheticBars(script=MarketScript(splits={"AAPL": [wrong, right, never]}))
    only = SyntheticBars(script=MarketScript(splits={"AAPL": [right]}))
    for found in sessions_between(date(2025, 6, 2), date(2025, 6, 12)):
        assert bars_of(found, market=changed) == bars_of(found, market=only)


def test_a_scripted_dividend_lowers_the_open_of_its_ex_date_only() -> None:
    paid = MarketScript(dividends={"AAPL": [ScriptedDividend(EX_DATE, 2.5)]})
    # Of a later 10-for-1 split, the dividend is per share before it.
    split_later = MarketScript({"AAPL": [ScriptedSplit(date(2025, 6, 12), 10)]}, paid.dividends)
    for script, ratio in ((paid, 1), (split_later, 10)):
        market, raw = SyntheticBars(script=script), SyntheticBars(script=MarketScript(script.splits))
        for found in sessions_between(date(2025, 6, 2), date(2025, 6, 13)):
            plain, scripted = bars_of(found, market=raw), bars_of(found, market=market)
            if found.session_date != EX_DATE:
                assert scripted == plain, ratio
                continue
            assert float(plain[0][1] or 0) - float(scripted[0][1] or 0) == pytest.approx(2.5, abs=0.011)
            assert scripted[-1][4] == plain[-1][4]
            assert [row[5] for row in scripted] == [row[5] for row in plain]


def test_a_renamed_symbol_has_one_series_under_two_names() -> None:
    last_day = date(2025, 6, 9)
    script = MarketScript({"META": [ScriptedSplit(date(2025, 6, 5), 4)]}, renames=[Rename("FB", "META", last_day)])
    market, single = SyntheticBars(script=script), SyntheticBars(script=MarketScript(script.splits))
    for found in sessions_between(date(2025, 6, 2), date(2025, 6, 13)):
        name, other = ("FB", "META") if found.session_date <= last_day else ("META", "FB")
        assert bars_of(found, name, market) == bars_of(found, "META", single)
        assert bars_of(found, other, market) == []


def test_a_script_is_read_back_from_json() -> None:
    script = MarketScript({"NVDA": [ScriptedSplit(EX_DATE, 10)]}, {"MSFT": [ScriptedDividend(EX_DATE, 0.83)]})
    assert MarketScript.from_json(json.loads(json.dumps(script.to_json()))) == script
