"""Every mark of a chart is at its bar's time and price, for any bars."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barflow.market.sessions import Session, new_york, sessions_between
from local.report.chart import LEAST_SLOTS, PHONE_LABEL, PITCH, PRICE_HEIGHT, PRICE_SHARE, Candle, Chart, draw

HOUR = timedelta(hours=1)
# Both DST changes and the half days of a year.
SESSIONS = sessions_between(date(2025, 2, 20), date(2026, 3, 20))
prices = st.integers(2, 500_000).map(lambda cents: cents / 100)


def hours(traded: Session) -> list[datetime]:
    return [traded.opens + HOUR * number for number in range(math.ceil((traded.closes - traded.opens) / HOUR))]


def expected_hours(candles: list[Candle]) -> list[datetime]:
    """Return every trading hour from the first bar to the last."""
    first, last = candles[0].bar_start, candles[-1].bar_start
    return [start for traded in SESSIONS for start in hours(traded) if first <= start <= last]


def candle(start: datetime, four: list[float], volume: int = 1000) -> Candle:
    low, *inner, high = sorted(four)
    return Candle("X", start, new_york(start).date(), inner[0], high, low, inner[1], volume, 12, 12)


@st.composite
def histories(draw_: st.DrawFn) -> list[Candle]:
    """Generate up to six weeks of hourly bars, some of them missing."""
    first = draw_(st.integers(0, len(SESSIONS) - 30))
    found = [start for traded in SESSIONS[first : first + draw_(st.integers(1, 30))] for start in hours(traded)]
    kept = [start for start in found if draw_(st.integers(0, 9))] or found[:1]
    four = st.lists(prices, min_size=4, max_size=4)
    turns = draw_(st.lists(four, min_size=7, max_size=7))
    return [candle(start, turns[n % 7], n * 100) for n, start in enumerate(kept)]


def drawn(chart: Chart) -> dict[int, tuple[str, list[int]]]:
    """Return by slot each candle's side and its highest and lowest y, read from the SVG paths alone."""
    found = {}
    for side, paths in chart.candles.items():
        for path in paths:
            x, top = map(int, re.findall(r"M(\d+) (\d+)h", path)[0])
            height = int(re.findall(r"v(\d+)", path)[0])
            wicks = [int(y) for part in re.findall(r"M\d+ (\d+)V(\d+)", path) for y in part]
            found[x // PITCH] = side, [min([top, *wicks]), max([top + height, *wicks])]
    return found


@settings(max_examples=40)
@given(histories())
def test_every_bar_has_a_slot_with_its_high_and_low_on_the_price_axis(candles: list[Candle]) -> None:
    chart = draw(candles)
    marks = drawn(chart)
    assert len(marks) == len(candles)
    highest, lowest = max(bar.high for bar in candles), min(bar.low for bar in candles)
    ends = [y for _, pair in marks.values() for y in pair]
    top, foot = min(ends), max(ends)
    unit = (highest - lowest) / (foot - top) if foot > top else 0
    for (_, (side, (high, low))), bar in zip(sorted(marks.items()), candles, strict=True):
        assert side == ("up" if bar.close >= bar.open else "down")
        assert highest - (high - top) * unit == pytest.approx(bar.high, abs=1.1 * unit + 1e-9)
        assert highest - (low - top) * unit == pytest.approx(bar.low, abs=1.1 * unit + 1e-9)
        assert 0 <= high <= low <= PRICE_HEIGHT


@settings(max_examples=40)
@given(histories())
def test_bars_are_in_time_order_and_a_missing_one_leaves_its_slot_empty(candles: list[Candle]) -> None:
    expected = expected_hours(candles)
    taken = [expected.index(bar.bar_start) for bar in candles]
    chart = draw(candles)
    assert sorted(drawn(chart)) == taken
    assert chart.bars.get("slots", list(range(len(candles)))) == taken
    assert chart.slots == max(LEAST_SLOTS, len(expected))


@settings(max_examples=40)
@given(histories())
def test_price_labels_are_round_and_at_their_price(candles: list[Candle]) -> None:
    chart = draw(candles)
    values = [float(tick.label.replace(",", "")) for tick in chart.price_ticks]
    assert 2 <= len(values) <= 8
    steps = [after - before for before, after in pairwise(values)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert all(0 <= tick.y <= PRICE_SHARE for tick in chart.price_ticks)
    (low, *_, high) = chart.price_ticks
    share = (low.y - high.y) / (values[-1] - values[0])
    assert chart.last.y == pytest.approx(high.y + (values[-1] - candles[-1].close) * share, abs=0.5)


@settings(max_examples=40)
@given(histories())
def test_labels_fit_a_phone_and_are_at_the_start_of_their_session(candles: list[Candle]) -> None:
    chart = draw(candles)
    everywhere = [label.x for label in chart.labels if label.where == "everywhere"]
    assert all(after - before >= PHONE_LABEL for before, after in pairwise(everywhere))
    assert everywhere[0] == 0
    opened: dict[date, int] = {}
    for slot, start in enumerate(expected_hours(candles)):
        opened.setdefault(new_york(start).date(), slot)
    begins = {round(slot / chart.slots * 100, 2): day.day for day, slot in opened.items()}
    assert [begins[label.x] for label in chart.labels] == [int(label.label.split()[-1]) for label in chart.labels]


def test_the_readout_shows_prices_to_the_cent_and_which_bars_are_short() -> None:
    start = datetime(2025, 7, 2, 13, 30, tzinfo=UTC)
    bars = [candle(start, [211.49001, 212, 210, 211.5]), candle(start + HOUR, [211.5, 212.3, 211, 211.9], 7)]
    short = Candle(**(vars(bars[1]) | {"bar_start": start + 2 * HOUR, "bar_count": 5}))
    columns = draw([*bars, short]).bars
    assert columns["t"] == [start.timestamp() / 60, 60, 60]
    assert (columns["o"][0], columns["v"]) == (211.49, [1000, 7, 7])
    assert columns["short"] == {2: "5 of 12"}


def test_a_price_below_a_dollar_has_four_decimals() -> None:
    chart = draw([candle(datetime(2025, 7, 2, 13, 30, tzinfo=UTC), [0.1234, 0.12, 0.13, 0.125])])
    assert (chart.decimals, chart.last.label, chart.bars["l"]) == (4, "0.1250", [0.12])
