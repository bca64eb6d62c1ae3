"""A backtest gives exactly what the live evaluation gives, does not look ahead, and depends on no order."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

import numpy as np
from alert_bars import NEWEST_DAY, traded
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_markets import random_book, random_market

from barflow.alerts.evaluate import Event
from barflow.alerts.expressions import COLUMNS, CROSSINGS, FUNCTIONS, NAMES, Value
from barflow.alerts.rules import SilenceRule
from barflow.alerts.signals import SessionView
from barflow.alerts.values import value_at
from barflow.backtest.ranges import Truth
from barflow.backtest.run import run
from barflow.backtest.screen import Screen
from barflow.backtest.sources import from_sessions
from barflow.market.bars import SessionBars
from barflow.market.sessions import BAR

CLOSE = traded(NEWEST_DAY).closes
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


def test_the_order_of_symbols_changes_nothing() -> None:
    random = Random(16)
    sessions, splits = random_market(random, symbols=4)
    book = random_book(random)
    expected = run(book, from_sessions(sessions, splits), CLOSE)
    assert len(expected.events) > 100
    for _ in range(3):
        shuffled = random.sample(sessions, len(sessions))
        assert run(book, from_sessions(shuffled, splits), CLOSE) == expected
