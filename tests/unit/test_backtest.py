"""A backtest gives exactly what the live evaluation gives, does not look ahead, and depends on no order."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from alert_bars import NEWEST_DAY, bars_of, days, traded
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_markets import random_book, random_market

from barflow.alerts.condition_values import COLUMNS, CROSSINGS, FUNCTIONS, NAMES, Value
from barflow.alerts.evaluate import Event
from barflow.alerts.rules import SilenceRule
from barflow.alerts.rules_file import parse_rules
from barflow.alerts.signals import SessionView
from barflow.alerts.values import value_at
from barflow.backtest.ranges import Truth
from barflow.backtest.run import run
from barflow.backtest.screen import Screen
from barflow.backtest.sources import from_lake, from_sessions
from barflow.errors import BadInputError
from barflow.lake.actions import promote_actions, stage_actions
from barflow.lake.partitions import Lake
from barflow.market.actions import Split, Version
from barflow.market.arrow import arrow_schema
from barflow.market.bars import OF_A_BAR, SessionBars
from barflow.market.instruments import parse_instruments
from barflow.market.sessions import BAR

CLOSE = traded(NEWEST_DAY).closes
RENAMED = date(2025, 7, 16)
SEEDS = st.integers(0, 2**32)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.booleans())
def test_the_screen_changes_no_result(seed: int, adjust: bool) -> None:
    random = Random(seed)
    sessions, splits = random_market(random)
    book, source = random_book(random), from_sessions(sessions, splits if adjust else None)
    start = random.choice((None, random.choice(sessions).session_date))
    assert run(book, source, CLOSE, start) == run(book, source, CLOSE, start, screened=False)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_each_range_of_the_screen_holds_the_live_number(seed: int) -> None:
    random = Random(seed)
    sessions, splits = random_market(random, symbols=1)
    series = from_sessions(sessions, splits).read("S0")
    screen = Screen(series, np.zeros(len(series.days), np.bool_))
    values = [Value(name) for name in NAMES]
    values += [Value(name, random.choice((5, 10, 30))) for name in FUNCTIONS]
    values += [Value("earlier", random.choice((1, 50)), column) for column in COLUMNS]
    crossed = [value for value in values if value.name not in ("volume", "volume_times")]
    values += [Value(name, compared=(random.choice(crossed), random.choice(crossed))) for name in CROSSINGS * 4]
    row = random.randrange(len(series.days))
    past = [series.packed(place, prices=True) for place in range(row)]
    view = SessionView(series.session(row), series.session_slots(row), past, series.splits)
    assume(view.unknown_split is None)
    for value in values:
        known = screen.known(value)
        found = screen.crossing(value)[0] if value.compared else screen.column(value).here
        for at in range(len(view.bars)):
            number, place = value_at(view, at, value), int(series.starts[row]) + at
            assert (number is not None) == known[place], (value, at)
            if number is not None:
                low, high = (found.must, found.may) if isinstance(found, Truth) else found
                assert low[place] <= number <= high[place], (value, at)


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_bars_after_a_moment_change_no_alert_before_it(seed: int) -> None:
    random = Random(seed)
    sessions, splits = random_market(random)
    book = random_book(random)
    day = random.choice(sessions).session_date
    moment = random.choice(traded(day).slots) + random.choice((BAR, BAR / 2))
    cut = [part for bars in sessions if (part := _until(bars, moment))]
    assume(cut)
    whole, before = (
        run(book, from_sessions(found, splits), until) for found, until in ((sessions, CLOSE), (cut, moment))
    )
    assert _alerts(before.events, moment) == _alerts(whole.events, moment)
    assert _alerts(before.cooled_down, moment) == _alerts(whole.cooled_down, moment)


def _until(bars: SessionBars, moment: datetime) -> SessionBars | None:
    """Return the bars of a session that have closed at a moment, or None if there are none."""
    closed = [bar for bar in bars.bars() if bar.ts + BAR <= moment]
    return SessionBars.of(bars.symbol, bars.session_date, closed) if closed else None


def _alerts(events: list[Event], moment: datetime) -> list[tuple[str, str | None, float | None]]:
    """Return what is said of alerts up to a moment. A silence that lasts still grows, so its value is not compared."""
    found = []
    for event in events:
        if isinstance(event.rule, SilenceRule):
            if event.bar_start + timedelta(minutes=event.rule.minutes) <= moment:
                found.append((event.id, event.direction, None))
        elif event.bar_start + BAR <= moment:
            found.append((event.id, event.direction, event.value))
    return found


@pytest.mark.parametrize("processes", [1, 2])
def test_the_archive_gives_what_memory_gives(tmp_path: Path, processes: int) -> None:
    sessions, splits = random_market(random := Random(5), symbols=3)
    splits["S0"] = [Split("S0", days(4)[0].session_date, 2.0, "file", traded(NEWEST_DAY).opens)]
    book, lake = random_book(random), Lake(str(tmp_path))
    renamed = parse_instruments({"instrument": [{"symbol": "S0", "former": [{"symbol": "OLD", "last_day": RENAMED}]}]})
    for name in ("S0", "S1", "S2"):
        versions = [Version(item) for item in splits.get(name, ())]
        stage_actions(lake, "run", name, versions, {"split"})
        promote_actions(lake, "run", [name])
        for month in ("2025-06", "2025-07"):
            for stored in (name, "OLD"):
                _fill(lake, stored, month, [bars for bars in sessions if bars.symbol == name and _name(bars) == stored])
    start = days(8)[0].session_date
    source = from_lake(lake, ["S2", "OLD", "S1"], book, (start, NEWEST_DAY), renamed)
    found = run(book, source, CLOSE, start, processes=processes)
    known = [bars for bars in sessions if bars.session_date >= source.first]
    assert found == run(book, from_sessions(known, splits), CLOSE, start)
    assert found.events
    assert found.symbols == ("S0", "S1", "S2")
    with pytest.raises(BadInputError, match="no bars of NONE"):
        run(book, from_lake(lake, ["NONE"], book, (start, NEWEST_DAY)), CLOSE)


def _name(bars: SessionBars) -> str:
    return "OLD" if bars.symbol == "S0" and bars.session_date <= RENAMED else bars.symbol


def _fill(lake: Lake, name: str, month: str, sessions: list[SessionBars]) -> None:
    rows = [
        {name: getattr(bar, name) for name in OF_A_BAR} | {"session_date": bars.session_date, "known_from": CLOSE}
        for bars in sessions
        if f"{bars.session_date:%Y-%m}" == month
        for bar in bars.bars()
    ]
    if rows:
        lake.replace(name, month, pa.Table.from_pylist(rows, arrow_schema()))


def test_one_alert_of_the_feed_replaces_the_silences_of_most_symbols() -> None:
    day, silent = days(1)[0].session_date, [slot for slot in range(78) if not 20 <= slot < 30]
    sessions = [bars_of(day, dict.fromkeys(silent, 100.0), symbol) for symbol in ("A", "B", "C")]
    whole = bars_of(day, [100.0] * 78, "D")
    alone = bars_of(day, dict.fromkeys([*range(50), *range(60, 78)], 100.0), "E")
    book = parse_rules({"rule": [{"id": "stale", "kind": "silence", "minutes": 20}]})
    found = run(book, from_sessions([*sessions, whole, alone]), CLOSE)
    assert [(event.symbol, event.bar_start) for event in found.events] == [
        ("*", traded(day).slots[20]),
        ("E", traded(day).slots[50]),
    ]
    few = run(book, from_sessions([sessions[0], whole, alone]), CLOSE)
    assert [event.symbol for event in few.events] == ["A", "E"]


def test_sessions_before_the_start_are_looked_back_at_and_fire_nothing() -> None:
    past = [bars_of(item.session_date, [100.0, 110.0], "A") for item in days(4)[:-1]]
    today = bars_of(NEWEST_DAY, [100.0, 109.0, 120.0], "A")
    book = parse_rules({"rule": [{"id": "high", "kind": "extreme", "sessions": 3, "cool_down_minutes": 100_000}]})
    found = run(book, from_sessions([*past, today]), CLOSE, NEWEST_DAY)
    assert [event.bar_start for event in found.events] == [today.ts[2]]
    assert (found.first, found.last, found.bars) == (NEWEST_DAY, NEWEST_DAY, 3)


def test_the_order_of_symbols_changes_nothing() -> None:
    random = Random(16)
    sessions, splits = random_market(random, symbols=4)
    book = random_book(random)
    expected = run(book, from_sessions(sessions, splits), CLOSE)
    assert len(expected.events) > 100
    for _ in range(3):
        shuffled = random.sample(sessions, len(sessions))
        assert run(book, from_sessions(shuffled, splits), CLOSE) == expected
