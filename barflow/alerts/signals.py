"""Does a rule hold at a bar? One function a kind of rule, each looking at that bar and at what came before it.

A signal is a pair, up and down; where a side holds it gives the value that an alert reports and what it is measured
against. A rule that lacks the history it needs holds on neither side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from statistics import fmean
from typing import Any

from barflow.alerts.history import Seen
from barflow.alerts.rules import AverageRule, ExtremeRule, GapRule, LevelRule, MoveRule, VolumeRule
from barflow.market.bars import SessionBars
from barflow.market.sessions import BAR, previous_session

Hit = tuple[float, float]
Signal = tuple[Hit | None, Hit | None]
NEITHER: Signal = (None, None)
BAR_MINUTES = int(BAR.total_seconds()) // 60


class View:
    """A session as the rules see it: its bars, the number of each one's slot, and the sessions before it in order."""

    def __init__(self, bars: SessionBars, slots: bytes, past: Sequence[Seen]) -> None:
        self.bars, self.slots, self.past = bars, slots, past
        self._known: dict[tuple[object, ...], Any] = {}

    def once(self, make: Callable[..., Any], *arguments: int) -> Any:
        """What ``make`` says of this view, worked out once for all rules that ask."""
        key = (make, *arguments)
        if key not in self._known:
            self._known[key] = make(self, *arguments)
        return self._known[key]


def level(rule: LevelRule, view: View, at: int) -> Signal:
    close = view.bars.close
    if not at and not view.past:
        return NEITHER
    before = close[at - 1] if at else view.past[-1].last_close
    return _crossed(_apart(before, rule.level), _apart(close[at], rule.level), (close[at], rule.level))


def move(rule: MoveRule, view: View, at: int) -> Signal:
    """Against the session's closes, and the price it opened with, of the minutes up to this bar's close."""
    oldest = view.slots[at] - rule.minutes // BAR_MINUTES
    first = at
    while first and view.slots[first - 1] >= oldest:
        first -= 1
    prices = view.bars.close[first:at]
    if not first and view.slots[0] > oldest:
        prices = [view.bars.open[0], *prices]
    if not prices:
        return NEITHER
    close, low, high = view.bars.close[at], min(prices), max(prices)
    return _beyond(rule.percent, (_percent(close, low), low), (_percent(close, high), high))


def gap(rule: GapRule, view: View, at: int) -> Signal:
    """Over the night only: where the session before is missing, a gap is not one night's."""
    if at or not view.past:
        return NEITHER
    night = previous_session(view.bars.session_date)
    if night is None or view.past[-1].session_date != night.session_date:
        return NEITHER
    close = view.past[-1].last_close
    hit = (_percent(view.bars.open[0], close), close)
    return _beyond(rule.percent, hit, hit)


def volume(rule: VolumeRule, view: View, at: int) -> Signal:
    usual = view.once(_usual_volume, rule.sessions, view.slots[at])
    if not usual:
        return NEITHER
    times = round(view.bars.volume[at] / usual, 4)
    return ((times, usual) if times > rule.times else None), None


def average(rule: AverageRule, view: View, at: int) -> Signal:
    if rule.bars:
        tail = view.once(_last_closes, rule.bars)
        before, now = _of_bars(view, tail, at - 1, rule.bars), _of_bars(view, tail, at, rule.bars)
    else:
        before, now = _of_days(view, at - 1, rule.sessions or 0), _of_days(view, at, rule.sessions or 0)
    if before is None or now is None:
        return NEITHER
    return _crossed(_apart(*before), _apart(*now), now)


def extreme(rule: ExtremeRule, view: View, at: int) -> Signal:
    """Holds from the first bar beyond until the session ends: it is one new high, however often it is bettered."""
    bounds = view.once(_bounds, rule.sessions)
    if bounds is None:
        return NEITHER
    low, high = bounds
    lowest, highest = min(view.bars.low[: at + 1]), max(view.bars.high[: at + 1])
    return ((highest, high) if highest > high else None), ((lowest, low) if lowest < low else None)


SIGNALS: dict[type[Any], Callable[[Any, View, int], Signal]] = {
    LevelRule: level,
    MoveRule: move,
    GapRule: gap,
    VolumeRule: volume,
    AverageRule: average,
    ExtremeRule: extreme,
}


def _percent(price: float, reference: float) -> float:
    return round((price / reference - 1) * 100, 4)


def _beyond(percent: float, up: Hit, down: Hit) -> Signal:
    return (up if up[0] >= percent else None), (down if down[0] <= -percent else None)


def _apart(price: float, reference: float) -> float:
    """0 where the two differ by less than a sum's rounding: a flat price must not cross its own average."""
    return 0.0 if math.isclose(price, reference, rel_tol=1e-9) else price - reference


def _crossed(before: float, now: float, hit: Hit) -> Signal:
    return (hit if before < 0 <= now else None), (hit if before > 0 >= now else None)


def _usual_volume(view: View, sessions: int, slot: int) -> float | None:
    seen = [shares for item in view.past[-sessions:] if (shares := item.volume_at(slot)) is not None]
    return fmean(seen) if seen and len(seen) * 2 >= sessions else None


def _bounds(view: View, sessions: int) -> tuple[float, float] | None:
    """The lowest low and the highest high of so many sessions before."""
    if len(view.past) < sessions:
        return None
    window = view.past[-sessions:]
    return min(item.low for item in window), max(item.high for item in window)


def _daily_closes(view: View, sessions: int) -> list[float]:
    return [item.last_close for item in view.past[-sessions:]]


def _of_days(view: View, at: int, sessions: int) -> Hit | None:
    """The close of a bar (-1 is the last one of the session before) and the average of daily closes then."""
    days = view.once(_daily_closes, sessions)
    days = days[1:] if at >= 0 and len(days) == sessions else days
    if at >= 0:
        days = [*days, view.bars.close[at]]
    return (days[-1], fmean(days)) if len(days) == sessions else None


def _last_closes(view: View, count: int) -> list[float]:
    """The last closes before the session, so many or as many as are kept, oldest first."""
    found: list[tuple[float, ...]] = []
    for item in reversed(view.past):
        if sum(map(len, found)) >= count:
            break
        found.insert(0, item.all_closes())
    return [*chain.from_iterable(found)][-count:]


def _of_bars(view: View, tail: list[float], at: int, count: int) -> Hit | None:
    """The close of a bar (-1 is the last one of the session before) and the average of the bars up to it."""
    window = [*tail, *view.bars.close[: at + 1]][-count:]
    return (window[-1], fmean(window)) if len(window) == count else None
