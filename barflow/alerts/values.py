"""The values that a condition names, at one bar of a session. None where too few bars or sessions are stored.

Prices are dollars and volumes are shares, both in the shares of the evaluated session. Place -1 is the last bar before
the session, with which a crossing compares the session's first bar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import accumulate, chain, pairwise
from operator import add, mul
from statistics import fmean

from barflow.alerts.condition_values import EMA_WINDOWS, Value, sessions_with
from barflow.alerts.expressions import condition
from barflow.alerts.rules import ExpressionRule
from barflow.alerts.signals import (
    BAR_MINUTES,
    NEITHER,
    SessionView,
    Signal,
    bounds,
    daily_average,
    difference,
    percent,
    prices_within,
    usual_volume,
)
from barflow.market.sessions import previous_session, session

Number = float | bool | None
Function = Callable[[SessionView, int, Value], Number]


def expression(rule: ExpressionRule, view: SessionView, at: int) -> Signal:
    """Hold if the rule's condition holds. It never holds at a bar at which one of its values is not known."""
    checked, found, known = condition(rule.when), [], view.values[at]
    for value in checked.values:
        number = known[value] if value in known else value_at(view, at, value)
        if number is None:
            return NEITHER
        found.append(number)
    return ((view.bars.close[at], None), None) if checked.holds(found) else NEITHER


def value_at(view: SessionView, at: int, value: Value) -> Number:
    """Return a value at a bar, or None if it is not known. It is computed once for all rules."""
    name, known = value.name, view.values[at]
    if name == "close" and at >= 0:
        return view.bars.close[at]
    if value in known:
        return known[value]
    found = known[value] = None if at < 0 and name in OF_ONE_BAR else VALUES[name](view, at, value)
    return found


def _crosses(view: SessionView, at: int, value: Value) -> Number:
    """Return whether the first value comes from the other side of the second one, and reaches or passes it."""
    one, other = value.compared
    before, now = view.cached(_apart, at - 1, one, other), view.cached(_apart, at, one, other)
    if before is None or now is None:
        return None
    return bool(before < 0 <= now) if value.name == "crosses_above" else bool(before > 0 >= now)


def _apart(view: SessionView, at: int, one: Value | float, other: Value | float) -> Number:
    """Return the first value minus the second one. 0 within rounding, as for a rule of the kind ``level``."""
    price = one if isinstance(one, float) else value_at(view, at, one)
    reference = other if isinstance(other, float) else value_at(view, at, other)
    return None if price is None or reference is None else difference(price, reference)


def _window(view: SessionView, column: str, at: int, bars: int) -> list[float] | None:
    """Return a column of the last ``bars`` bars up to a place, oldest first, or None if there are fewer."""
    values: list[float] = getattr(view.bars, column)
    first = at + 1 - bars
    if first >= 0:
        return values[first : at + 1]
    tail: list[float] = view.cached(_tail, column, sessions_with(bars))
    return None if len(tail) < -first else [*tail[first:], *values[: at + 1]]


def _tail(view: SessionView, column: str, sessions: int) -> list[float]:
    """Return a column of all bars of the newest ``sessions`` sessions before this one, oldest first."""
    return [*chain.from_iterable(item.column(column) for item in view.past[-sessions:])]


def _of(view: SessionView, at: int, value: Value) -> Number:
    """Return the value of another symbol at the bar with the same open."""
    other = view.others.get(value.symbol)
    place = -1 if other is None else other.slots.find(view.slots[at])
    return None if other is None or place < 0 else value_at(other, place, Value(value.column))


def _earlier(view: SessionView, at: int, value: Value) -> Number:
    window = _window(view, value.column, at, value.n + 1)
    return None if window is None else float(window[0])


def _column(view: SessionView, at: int, value: Value) -> Number:
    window = _window(view, value.name, at, 1)
    return None if window is None else float(window[0])


def _vwap(view: SessionView, at: int, value: Value) -> Number:
    shares, dollars = view.cached(_traded)
    return dollars[at] / shares[at] / 3 if shares[at] else None


def _traded(view: SessionView) -> tuple[list[int], list[float]]:
    """Return the shares that were traded up to each bar of the session, and three times the dollars."""
    bars = view.bars
    sums = map(add, map(add, bars.high, bars.low), bars.close)
    return [*accumulate(bars.volume)], [*accumulate(map(mul, sums, bars.volume))]


def _prev_close(view: SessionView, at: int, value: Value) -> Number:
    previous = previous_session(view.bars.session_date)
    if not view.past or previous is None or view.past[-1].session_date != previous.session_date:
        return None
    return view.past[-1].last_close


def _change(view: SessionView, at: int, value: Value) -> Number:
    before = _prev_close(view, at, value)
    return None if before is None else percent(view.bars.close[at], before)


def _gap(view: SessionView, at: int, value: Value) -> Number:
    before = _prev_close(view, at, value)
    return None if before is None else percent(view.bars.open[0], before)


def _minutes_since_open(view: SessionView, at: int, value: Value) -> Number:
    return float((view.slots[at] + 1) * BAR_MINUTES)


def _minutes_to_close(view: SessionView, at: int, value: Value) -> Number:
    traded = session(view.bars.session_date)
    assert traded is not None, "only sessions are stored"
    return float((len(traded.slots) - view.slots[at] - 1) * BAR_MINUTES)


def _sma(view: SessionView, at: int, value: Value) -> Number:
    window = _window(view, "close", at, value.n)
    return None if window is None else fmean(window)


def _ema(view: SessionView, at: int, value: Value) -> Number:
    """Start with the mean of the oldest n of 5 n closes, so that the same bars give the same value everywhere."""
    window = _window(view, "close", at, EMA_WINDOWS * value.n)
    if window is None:
        return None
    weight, found = 2 / (value.n + 1), fmean(window[: value.n])
    for close in window[value.n :]:
        found += weight * (close - found)
    return found


def _rsi(view: SessionView, at: int, value: Value) -> Number:
    """Return Cutler's RSI, of simple averages, as in the warehouse's daily metrics."""
    window = _window(view, "close", at, value.n + 1)
    if window is None:
        return None
    steps = [after - before for before, after in pairwise(window)]
    gains, moves = sum(step for step in steps if step > 0), sum(map(abs, steps))
    return 100 * gains / moves if moves else 50.0


def _stdev(view: SessionView, at: int, value: Value) -> Number:
    window = _window(view, "close", at, value.n)
    if window is None:
        return None
    mean = fmean(window)
    return math.sqrt(sum((close - mean) ** 2 for close in window) / (value.n - 1))


def _atr(view: SessionView, at: int, value: Value) -> Number:
    highs, lows = _window(view, "high", at, value.n), _window(view, "low", at, value.n)
    closes = _window(view, "close", at, value.n + 1)
    if highs is None or lows is None or closes is None:
        return None
    return fmean(
        max(high, before) - min(low, before) for high, low, before in zip(highs, lows, closes[:-1], strict=True)
    )


def _highest(view: SessionView, at: int, value: Value) -> Number:
    window = _window(view, "high", at, value.n)
    return None if window is None else max(window)


def _lowest(view: SessionView, at: int, value: Value) -> Number:
    window = _window(view, "low", at, value.n)
    return None if window is None else min(window)


def _volume_times(view: SessionView, at: int, value: Value) -> Number:
    usual = view.cached(usual_volume, value.n, view.slots[at])
    return round(view.bars.volume[at] / usual, 4) if usual else None


def _daily_sma(view: SessionView, at: int, value: Value) -> Number:
    found = daily_average(view, at, value.n)
    return None if found is None else found[1]


def _daily_bound(view: SessionView, at: int, value: Value) -> Number:
    found = view.cached(bounds, value.n)
    return None if found is None else float(found[value.name == "daily_highest"])


def _rise(view: SessionView, at: int, value: Value) -> Number:
    prices = view.cached(prices_within, at, value.n)
    return percent(view.bars.close[at], min(prices)) if prices else None


def _fall(view: SessionView, at: int, value: Value) -> Number:
    prices = view.cached(prices_within, at, value.n)
    return -percent(view.bars.close[at], max(prices)) if prices else None


VALUES: Mapping[str, Function] = {
    "open": _column,
    "high": _column,
    "low": _column,
    "close": _column,
    "volume": _column,
    "earlier": _earlier,
    "of": _of,
    "vwap": _vwap,
    "prev_close": _prev_close,
    "session_open": lambda view, at, value: view.bars.open[0],
    "session_high": lambda view, at, value: max(view.bars.high[: at + 1]),
    "session_low": lambda view, at, value: min(view.bars.low[: at + 1]),
    "change_pct": _change,
    "gap_pct": _gap,
    "minutes_since_open": _minutes_since_open,
    "minutes_to_close": _minutes_to_close,
    "sma": _sma,
    "ema": _ema,
    "rsi": _rsi,
    "stdev": _stdev,
    "atr": _atr,
    "highest": _highest,
    "lowest": _lowest,
    "volume_times": _volume_times,
    "daily_sma": _daily_sma,
    "daily_highest": _daily_bound,
    "daily_lowest": _daily_bound,
    "rise_pct": _rise,
    "fall_pct": _fall,
    "crosses_above": _crosses,
    "crosses_below": _crosses,
}
# Values of one session, up to one of its bars. They have no value before its first bar.
OF_ONE_BAR = frozenset(
    {"vwap", "session_high", "session_low", "change_pct", "minutes_since_open", "minutes_to_close", "volume_times"}
    | {"rise_pct", "fall_pct", "of"}
)
