"""The values of conditions at every bar of a share at once, as ranges that hold the numbers of the live code.

Windows reach over sessions, so prices are computed in the shares of the newest session and given in those of each bar's
own session. Each value says where the live code knows it. That is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from barflow.alerts.condition_values import COLUMNS, EMA_WINDOWS, Value, sessions_with
from barflow.alerts.rules import LevelRule
from barflow.alerts.signals import BAR_MINUTES
from barflow.backtest.ranges import Bools, Floats, Range, divide, exact, near
from barflow.backtest.series import Places, Series
from barflow.market.sessions import previous_session, session

MOST_SLOTS = 78
# Half of the last digit of a percentage with four decimals, and some rounding.
FOUR_DECIMALS = 0.6e-4
ROUNDING = float(np.finfo(np.float64).eps)


Unit = Literal["dollars", "shares", "none"]


class Column(NamedTuple):
    """A value at each bar, and at the place before each session's first bar. Its range holds where it is known."""

    here: Range
    known: Bools
    first: Range
    first_known: Bools


class Columns:
    """The values of one share. Arrays by bar have the length of the series, arrays by session that of its days."""

    def __init__(self, series: Series) -> None:
        self.series, self.days = series, len(series.days)
        self.start: Places = series.starts[:-1]
        self.row: Places = np.repeat(np.arange(self.days), np.diff(series.starts))
        self.place: Places = np.arange(len(series)) - self.start[self.row]
        self._columns: dict[Value, Column | None] = {}
        self._cells: Places = self.row * MOST_SLOTS + series.slots

    def value(self, value: Value) -> Column | None:
        """Return the value at each bar, or None for one that this class does not compute."""
        if value not in self._columns:
            compute = COMPUTED.get(value.name)
            self._columns[value] = compute(self, value) if compute else None
        return self._columns[value]

    def before(self, column: Column) -> tuple[Range, Bools]:
        """Return a value one place before each bar, and where it is known."""
        low, high, known = np.roll(column.here.low, 1), np.roll(column.here.high, 1), np.roll(column.known, 1)
        low[self.start], high[self.start], known[self.start] = *column.first, column.first_known
        return Range(low, high), known

    def level(self, rule: LevelRule) -> Column:
        """Return the level of a rule in the shares of each bar's session."""
        levels = np.full(self.days, rule.level)
        found = exact(levels)
        if rule.as_of and self.series.splits:
            for split in self.series.splits:
                for row, day in enumerate(self.series.days):
                    if rule.as_of < split.ex_date <= day:
                        levels[row] /= split.ratio
                    elif day < split.ex_date <= rule.as_of:
                        levels[row] *= split.ratio
            found = near(levels)
        return self.by_session(found, np.ones(self.days, np.bool_))

    def number(self, number: float) -> Column:
        """Return a number as a column."""
        bars, days = (np.broadcast_to(np.float64(number), count) for count in (len(self.series), self.days))
        known, first_known = (np.broadcast_to(np.True_, count) for count in (len(self.series), self.days))
        return Column(exact(bars), known, exact(days), first_known)

    def by_session(self, found: Range, known: Bools, *, first: bool = True) -> Column:
        """Return a value that is the same at all bars of a session, and before them if ``first``."""
        return Column(found.at(self.row), known[self.row], found, known & first)

    def within(self, found: Range, known: Bools | None = None) -> Column:
        """Return a value that has no meaning before a session's first bar."""
        known = np.ones(len(self.series), np.bool_) if known is None else known
        return Column(found, known, found.at(self.start), np.zeros(self.days, np.bool_))

    def window(self, found: Range, bars: int, unit: Unit = "dollars") -> Column:
        """Return a value of the last ``bars`` bars, computed in the newest shares, in the shares of each session."""
        oldest = np.maximum(np.arange(self.days) - sessions_with(bars), 0)
        past = self.start - self.start[oldest]
        last = np.maximum(self.start - 1, 0)
        here, first = found, found.at(last)
        if self.ratios is not None and unit != "none":
            scale = 1 / self.ratios if unit == "shares" else self.ratios
            here, first = _scaled(here, scale[self.row]), _scaled(first, scale)
        return Column(here, self.place + 1 + past[self.row] >= bars, first, past >= bars)

    @cached_property
    def ratios(self) -> Floats | None:
        """Return the shares of today for one share of each session, or None if they are the same."""
        splits = [split for split in self.series.splits or () if self.series.days[0] < split.ex_date]
        splits = [split for split in splits if split.ex_date <= self.series.days[-1] and split.ratio != 1]
        if not splits:
            return None
        found = np.ones(self.days)
        days = np.array(self.series.days, "datetime64[D]")
        for split in splits:
            found[days < np.datetime64(split.ex_date)] *= split.ratio
        return found

    def adjusted(self, name: str) -> Floats:
        """Return a column of each bar, in the shares of the newest session."""
        raw = self.series.volume.astype(np.float64) if name == "volume" else self.series.prices[name]
        if self.ratios is None:
            return raw
        found: Floats = raw * self.ratios[self.row] if name == "volume" else raw / self.ratios[self.row]
        return found

    def known_range(self, values: Floats) -> Range:
        """Return stored numbers as a range. They are exact if no split adjusts them."""
        return exact(values) if self.ratios is None else near(values)

    @cached_property
    def closes(self) -> Floats:
        """Return the adjusted closes."""
        return self.adjusted("close")

    @cached_property
    def last_closes(self) -> Floats:
        """Return the adjusted last close of each session."""
        return self.closes[self.series.starts[1:] - 1]

    @cached_property
    def previous_close(self) -> Range:
        """Return the last close before each session, in its shares."""
        found = self.known_range(np.roll(self.last_closes, 1))
        return found if self.ratios is None else _scaled(found, self.ratios)

    @cached_property
    def follows(self) -> Bools:
        """Return whether each session follows the exchange's session before it."""
        found = np.zeros(self.days, np.bool_)
        for row in range(1, self.days):
            previous = previous_session(self.series.days[row])
            found[row] = previous is not None and previous.session_date == self.series.days[row - 1]
        return found

    @cached_property
    def opening(self) -> Floats:
        """Return the first price of each session, in dollars as stored."""
        return self.series.prices["open"][self.start]

    def grid(self, values: NDArray[np.float64], fill: float) -> Floats:
        """Return values by session and slot."""
        found = np.full(self.days * MOST_SLOTS, float(fill))
        found[self._cells] = values
        return found.reshape(self.days, MOST_SLOTS)

    def from_grid(self, grid: Floats) -> Floats:
        """Return the values of a grid by bar."""
        return grid.ravel()[self._cells]

    def sessions_before(self, values: Floats, n: int, reduce: Callable[..., Floats]) -> Floats:
        """Return a reduction of the ``n`` sessions before each one. It has no meaning for the first ``n``."""
        found = np.ones(self.days)
        if self.days > n:
            found[n:] = reduce(sliding_window_view(values, n), axis=1)[:-1]
        return found


def _scaled(found: Range, scale: Floats) -> Range:
    scaled = Range(found.low * scale, found.high * scale)
    return Range(scaled.low - np.abs(scaled.low) * 1e-14, scaled.high + np.abs(scaled.high) * 1e-14)


def _unit(column: str) -> Unit:
    return "shares" if column == "volume" else "dollars"


def rolling(function: np.ufunc, values: Floats, width: int) -> Floats:
    """Return the largest or the smallest of the last ``width`` values, along the last axis.

    The first ones have fewer.
    """
    found, reach = values.copy(), 1
    while reach < width:
        step = min(reach, width - reach)
        found[..., step:] = function(found[..., step:], found[..., :-step])
        reach += step
    return found


def _sums(values: Floats, n: int) -> tuple[Floats, float]:
    """Return the sums of the last ``n`` values, and their largest error. The first ones have no meaning."""
    middle = float(values.mean()) if len(values) else 0.0
    apart = values - middle
    totals = np.concatenate(([0.0], np.cumsum(apart)))
    found = np.ones(len(values))
    if len(values) >= n:
        found[n - 1 :] = totals[n:] - totals[: len(totals) - n] + n * middle
    error = 2 * len(values) * ROUNDING * float(np.abs(apart).sum())
    return found, error + 4 * n * ROUNDING * float(np.abs(values).max(initial=0))


def _column(columns: Columns, value: Value) -> Column:
    found = columns.known_range(columns.adjusted(value.name))
    column = columns.window(found, 1, _unit(value.name))
    raw = columns.series.volume.astype(np.float64) if value.name == "volume" else columns.series.prices[value.name]
    return column._replace(here=exact(raw))


def _earlier(columns: Columns, value: Value) -> Column:
    found = columns.known_range(np.roll(columns.adjusted(value.column), value.n))
    return columns.window(found, value.n + 1, _unit(value.column))


def _sma(columns: Columns, value: Value) -> Column:
    sums, error = _sums(columns.closes, value.n)
    return columns.window(near(sums / value.n, error / value.n), value.n)


def _ema(columns: Columns, value: Value) -> Column:
    bars, weight = EMA_WINDOWS * value.n, 2 / (value.n + 1)
    weights = weight * (1 - weight) ** np.arange(bars)
    weights[-value.n :] = (1 - weight) ** (bars - value.n) / value.n
    found = np.ones(len(columns.closes))
    if len(found) >= bars:
        found[bars - 1 :] = np.convolve(columns.closes, weights, "valid")
    return columns.window(near(found), bars)


def _rsi(columns: Columns, value: Value) -> Column:
    steps = np.diff(columns.closes, prepend=columns.closes[:1])
    gains, gain_error = _sums(np.maximum(steps, 0), value.n)
    moves, move_error = _sums(np.abs(steps), value.n)
    error = gain_error + move_error + 4 * value.n * ROUNDING * float(np.abs(columns.closes).max(initial=0))
    quiet = moves <= 2 * error
    low = 100 * (gains - error) / np.where(quiet, 1, moves + error)
    high = 100 * (gains + error) / np.where(quiet, 1, moves - error)
    found = Range(np.where(quiet, 0, low), np.where(quiet, 100, high))
    return columns.window(found.widened(1e-8), value.n + 1, "none")


def _stdev(columns: Columns, value: Value) -> Column:
    middle = float(columns.closes.mean()) if len(columns.closes) else 0.0
    apart = columns.closes - middle
    squares, square_error = _sums(apart**2, value.n)
    sums, error = _sums(apart, value.n)
    spread = squares - sums**2 / value.n
    largest = float(np.abs(columns.closes).max(initial=0))
    errors = square_error + (2 * np.abs(sums) + error) * error / value.n + 16 * value.n * ROUNDING * largest**2
    low, high = np.maximum(spread - errors, 0), np.maximum(spread, 0) + errors
    found = Range(np.sqrt(low / (value.n - 1)), np.sqrt(high / (value.n - 1)))
    return columns.window(Range(found.low * (1 - 1e-9), found.high * (1 + 1e-9)), value.n)


def _atr(columns: Columns, value: Value) -> Column:
    before = np.roll(columns.closes, 1)
    spans = np.maximum(columns.adjusted("high"), before) - np.minimum(columns.adjusted("low"), before)
    sums, error = _sums(spans, value.n)
    largest = float(np.abs(columns.closes).max(initial=0))
    found = columns.window(near(sums / value.n, error / value.n + 8 * ROUNDING * largest), value.n + 1)
    prices = columns.window(found.here, value.n)
    return found._replace(known=found.known & prices.known, first_known=found.first_known & prices.first_known)


def _bound(columns: Columns, value: Value) -> Column:
    function, name = (np.maximum, "high") if value.name == "highest" else (np.minimum, "low")
    found = rolling(function, columns.adjusted(name), value.n)
    return columns.window(columns.known_range(found), value.n)


def _vwap(columns: Columns, value: Value) -> Column:
    prices, volume = columns.series.prices, columns.series.volume.astype(np.float64)
    shares = np.cumsum(columns.grid(volume, 0), axis=1)
    dollars = np.cumsum(columns.grid((prices["high"] + prices["low"] + prices["close"]) * volume, 0), axis=1)
    bought = columns.from_grid(shares)
    known = bought > 0
    return columns.within(near(columns.from_grid(dollars) / np.where(known, bought, 1) / 3), known)


def _previous(columns: Columns, value: Value) -> Column:
    return columns.by_session(columns.previous_close, columns.follows)


def _change(columns: Columns, value: Value) -> Column:
    before = columns.previous_close.at(columns.row)
    return columns.within(_percent(exact(columns.series.prices["close"]), before), columns.follows[columns.row])


def _gap(columns: Columns, value: Value) -> Column:
    return columns.by_session(_percent(exact(columns.opening), columns.previous_close), columns.follows)


def _percent(price: Range, reference: Range) -> Range:
    quotient = divide(price, reference)
    found = Range((quotient.low - 1) * 100, (quotient.high - 1) * 100)
    return found.widened(FOUR_DECIMALS + np.abs(found.high) * 1e-9)


def _minutes_since(columns: Columns, value: Value) -> Column:
    return columns.within(exact((columns.series.slots.astype(np.float64) + 1) * BAR_MINUTES))


def _minutes_to(columns: Columns, value: Value) -> Column:
    traded = [session(day) for day in columns.series.days]
    slots = np.array([len(item.slots) for item in traded if item])
    return columns.within(exact((slots[columns.row] - columns.series.slots.astype(np.float64) - 1) * BAR_MINUTES))


def _opening(columns: Columns, value: Value) -> Column:
    return columns.by_session(exact(columns.opening), np.ones(columns.days, np.bool_))


def _session_bound(columns: Columns, value: Value) -> Column:
    function, name, fill = (
        (np.maximum, "high", -np.inf) if value.name == "session_high" else (np.minimum, "low", np.inf)
    )
    grid = function.accumulate(columns.grid(columns.series.prices[name], fill), axis=1)
    return columns.within(exact(columns.from_grid(grid)))


def _volume_times(columns: Columns, value: Value) -> Column:
    volume = columns.adjusted("volume")
    rows = np.arange(columns.days)
    oldest = np.maximum(rows - value.n, 0)

    def past(values: Floats) -> Floats:
        totals = np.concatenate((np.zeros((1, MOST_SLOTS)), np.cumsum(columns.grid(values, 0), axis=0)))
        return columns.from_grid(totals[rows] - totals[oldest])

    counts, traded = past(np.ones(len(volume))), past((volume > 0).astype(np.float64))
    known = (counts > 0) & (counts * 2 >= value.n) & (traded > 0)
    error = 2 * columns.days * ROUNDING * float(columns.grid(volume, 0).sum(axis=0).max(initial=0))
    usual = near(past(volume) / np.maximum(counts, 1), error)
    if columns.ratios is not None:
        usual = _scaled(usual, 1 / columns.ratios[columns.row])
    usual = Range(np.where(known, usual.low, 1), np.where(known, usual.high, 1))
    times = divide(exact(columns.series.volume.astype(np.float64)), usual)
    return columns.within(times.widened(FOUR_DECIMALS + np.abs(times.high) * 1e-9), known)


def _daily_sma(columns: Columns, value: Value) -> Column:
    rows = np.arange(columns.days)
    means = columns.known_range(columns.sessions_before(columns.last_closes, value.n, np.mean))
    sums = columns.known_range(columns.sessions_before(columns.last_closes, value.n - 1, np.sum))
    if columns.ratios is not None:
        means, sums = _scaled(means, columns.ratios), _scaled(sums, columns.ratios)
    sums, closes = sums.at(columns.row), columns.series.prices["close"]
    here = Range((sums.low + closes) / value.n, (sums.high + closes) / value.n)
    margin = np.abs(here.high) * 1e-12
    first = means.widened(np.abs(means.high) * 1e-12)
    return Column(here.widened(margin), (rows >= value.n - 1)[columns.row], first, rows >= value.n)


def _daily_bound(columns: Columns, value: Value) -> Column:
    reduce, function, name = (
        (np.max, np.maximum, "high") if value.name == "daily_highest" else (np.min, np.minimum, "low")
    )
    by_session = function.reduceat(columns.adjusted(name), columns.start)
    found = columns.known_range(columns.sessions_before(by_session, value.n, reduce))
    if columns.ratios is not None:
        found = _scaled(found, columns.ratios)
    return columns.by_session(found, np.arange(columns.days) >= value.n)


def _within_minutes(columns: Columns, value: Value) -> Column:
    function, fill = (np.minimum, np.inf) if value.name == "rise_pct" else (np.maximum, -np.inf)
    closes = columns.series.prices["close"]
    # One column more, since the opening price counts as the bar before the first one.
    grid = np.full((columns.days, MOST_SLOTS + 1), fill)
    grid[:, 1:] = columns.grid(closes, fill)
    grid[np.arange(columns.days), columns.series.slots[columns.start]] = columns.opening
    extremes = columns.from_grid(np.ascontiguousarray(rolling(function, grid, value.n // BAR_MINUTES)[:, :-1]))
    known = np.isfinite(extremes)
    found = _percent(exact(closes), exact(np.where(known, extremes, 1)))
    return columns.within(found if value.name == "rise_pct" else Range(-found.high, -found.low), known)


COMPUTED: dict[str, Callable[[Columns, Value], Column]] = {
    **dict.fromkeys(COLUMNS, _column),
    "earlier": _earlier,
    "vwap": _vwap,
    "prev_close": _previous,
    "session_open": _opening,
    "session_high": _session_bound,
    "session_low": _session_bound,
    "change_pct": _change,
    "gap_pct": _gap,
    "minutes_since_open": _minutes_since,
    "minutes_to_close": _minutes_to,
    "sma": _sma,
    "ema": _ema,
    "rsi": _rsi,
    "stdev": _stdev,
    "atr": _atr,
    "highest": _bound,
    "lowest": _bound,
    "volume_times": _volume_times,
    "daily_sma": _daily_sma,
    "daily_highest": _daily_bound,
    "daily_lowest": _daily_bound,
    "rise_pct": _within_minutes,
    "fall_pct": _within_minutes,
}
