"""The signals: whether a rule holds at a bar. One function per kind of rule looks at the bar and at those before it.

A signal is a pair, up and down. A side that holds has the value that an alert reports, and the reference that the value
is compared with, if it has one. A rule without the history that it needs holds on neither side.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date
from itertools import chain
from statistics import fmean
from typing import Any

from barflow.alerts.condition_values import Value
from barflow.alerts.history import AdjustedSession, EvaluatedSession, in_shares_of
from barflow.alerts.rules import AverageRule, ExtremeRule, GapRule, LevelRule, MoveRule, SplitRule, VolumeRule
from barflow.market.actions import Split, split_factors, suspected_ratio
from barflow.market.bars import SessionBars
from barflow.market.sessions import BAR, previous_session

Hit = tuple[float, float | None]
Signal = tuple[Hit | None, Hit | None]
NEITHER: Signal = (None, None)
BAR_MINUTES = int(BAR.total_seconds()) // 60


class SessionView:
    """A session as the rules see it: its bars, the slot number of each, and the sessions before it in time order.

    The sessions before it are in its shares, by the ``splits``. With None, prices and volumes are compared as they are.

    Attributes:
        last_close: The last close before the session, in dollars.
        split: The ratio of the known splits since that close.
        unknown_split: The ratio of a split that the session's open suggests and that is not known.
        past: The sessions before it. It is empty if there is an unknown split: nothing compares with them.
        values: The values of conditions that were computed, by the place of the bar.
        others: The same session of other symbols that conditions name, by symbol.
    """

    def __init__(
        self, bars: SessionBars, slots: bytes, past: Sequence[EvaluatedSession], splits: Sequence[Split] | None = ()
    ) -> None:
        self.bars, self.slots, self.splits = bars, slots, splits or ()
        self.past = in_shares_of(bars.session_date, past, self.splits)
        before = self.past[-1] if past else None
        self.last_close = before.last_close if before else None
        self.split = before.ratio if isinstance(before, AdjustedSession) else 1.0
        self.unknown_split: float | None = None
        if splits is not None and before and not _says_no_split(splits, before.session_date, bars.session_date):
            self.unknown_split = suspected_ratio(before.last_close, bars.open[0])
            self.past = self.past if self.unknown_split is None else ()
        self._cache: dict[tuple[object, ...], Any] = {}
        self.values: defaultdict[int, dict[Value, float | bool | None]] = defaultdict(dict)
        self.others: dict[str, SessionView] = {}

    def level(self, rule: LevelRule) -> float:
        """Return a rule's level in the shares of the session, in dollars."""
        if rule.as_of is None or not self.splits:
            return rule.level
        return float(self.cached(_level, rule.level, rule.as_of))

    def cached(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Return ``function(view, *arguments)``, computed once for all rules that use it."""
        key = (function, *arguments)
        if key not in self._cache:
            self._cache[key] = function(self, *arguments)
        return self._cache[key]


def level(rule: LevelRule, view: SessionView, at: int) -> Signal:
    """Hold if the close reaches or passes the level from the other side, also between two sessions."""
    close = view.bars.close
    if not at and not view.past:
        return NEITHER
    before, price = close[at - 1] if at else view.past[-1].last_close, view.level(rule)
    return crossed(difference(before, price), difference(close[at], price), (close[at], price))


def move(rule: MoveRule, view: SessionView, at: int) -> Signal:
    """Hold if the close is far enough from a price of the rule's last minutes."""
    prices = prices_within(view, at, rule.minutes)
    if not prices:
        return NEITHER
    close, low, high = view.bars.close[at], min(prices), max(prices)
    return _beyond(rule.percent, (percent(close, low), low), (percent(close, high), high))


def gap(rule: GapRule, view: SessionView, at: int) -> Signal:
    """Hold at a session's first bar. Where the previous session is missing, it never holds."""
    if at or not view.past:
        return NEITHER
    previous = previous_session(view.bars.session_date)
    if previous is None or view.past[-1].session_date != previous.session_date:
        return NEITHER
    close = view.past[-1].last_close
    hit = (percent(view.bars.open[0], close), close)
    return _beyond(rule.percent, hit, hit)


def split(rule: SplitRule, view: SessionView, at: int) -> Signal:
    """Hold at a session's first bar, if its open suggests a split that is not known."""
    if at or view.unknown_split is None or view.last_close is None:
        return NEITHER
    hit = (percent(view.bars.open[0], view.last_close), view.last_close)
    return (None, hit) if view.unknown_split > 1 else (hit, None)


def volume(rule: VolumeRule, view: SessionView, at: int) -> Signal:
    """Hold if the volume is a large multiple of the mean at the same time of day. There is no down side."""
    usual = view.cached(usual_volume, rule.sessions, view.slots[at])
    if not usual:
        return NEITHER
    times = round(view.bars.volume[at] / usual, 4)
    return ((times, usual) if times > rule.times else None), None


def average(rule: AverageRule, view: SessionView, at: int) -> Signal:
    """Hold if the close crosses its moving average."""
    if rule.bars:
        tail = view.cached(_last_closes, rule.bars)
        before, now = _bar_average(view, tail, at - 1, rule.bars), _bar_average(view, tail, at, rule.bars)
    else:
        before, now = daily_average(view, at - 1, rule.sessions or 0), daily_average(view, at, rule.sessions or 0)
    if before is None or now is None:
        return NEITHER
    return crossed(difference(*before), difference(*now), now)


def extreme(rule: ExtremeRule, view: SessionView, at: int) -> Signal:
    """Hold from the first bar beyond the past range until the session ends, so that a new high or low fires once."""
    found = view.cached(bounds, rule.sessions)
    if found is None:
        return NEITHER
    low, high = found
    lowest, highest = min(view.bars.low[: at + 1]), max(view.bars.high[: at + 1])
    above, below = difference(highest, high) > 0, difference(lowest, low) < 0
    return ((highest, high) if above else None), ((lowest, low) if below else None)


SIGNALS: dict[type[Any], Callable[[Any, SessionView, int], Signal]] = {
    LevelRule: level,
    MoveRule: move,
    GapRule: gap,
    SplitRule: split,
    VolumeRule: volume,
    AverageRule: average,
    ExtremeRule: extreme,
}


def prices_within(view: SessionView, at: int, minutes: int) -> list[float]:
    """Return the prices of the minutes before a bar's close: the session's closes and its opening price, in dollars."""
    oldest = view.slots[at] - minutes // BAR_MINUTES
    first = at
    while first and view.slots[first - 1] >= oldest:
        first -= 1
    prices = view.bars.close[first:at]
    return [view.bars.open[0], *prices] if not first and view.slots[0] > oldest else prices


def _level(view: SessionView, level: float, as_of: date) -> float:
    """Return a level of the day ``as_of`` in the shares of the session, before or after that day."""
    day, splits = view.bars.session_date, view.splits
    if as_of <= day:
        return level / split_factors(splits, day).at(as_of).volume
    return level * split_factors(splits, as_of).at(day).volume


def _says_no_split(splits: Sequence[Split], last: date, day: date) -> bool:
    """Return whether a ratio of 1 says that there was no split after ``last``, up to ``day``."""
    return any(item.ratio == 1 and last < item.ex_date <= day for item in splits)


def percent(price: float, reference: float) -> float:
    """Return how far a price is above a reference, in percent with four decimals."""
    return round((price / reference - 1) * 100, 4)


def _beyond(percent: float, up: Hit, down: Hit) -> Signal:
    return (up if up[0] >= percent else None), (down if down[0] <= -percent else None)


def difference(price: float, reference: float) -> float:
    """Return price - reference, or 0 within rounding.

    A constant price must not cross its own average, nor exceed its own high before a split.
    """
    return 0.0 if math.isclose(price, reference, rel_tol=1e-9) else price - reference


def crossed(before: float, now: float, hit: Hit) -> Signal:
    """Hold on the side to which a difference changes its sign. 0 counts as reached."""
    return (hit if before < 0 <= now else None), (hit if before > 0 >= now else None)


def usual_volume(view: SessionView, sessions: int, slot: int) -> float | None:
    """Return the mean volume in a slot, or None where fewer than half of the sessions have a bar there."""
    volumes = [shares for item in view.past[-sessions:] if (shares := item.volume_at(slot)) is not None]
    return fmean(volumes) if volumes and len(volumes) * 2 >= sessions else None


def bounds(view: SessionView, sessions: int) -> tuple[float, float] | None:
    """Return the lowest low and the highest high of the previous sessions, or None if there are too few."""
    if len(view.past) < sessions:
        return None
    window = view.past[-sessions:]
    return min(item.low for item in window), max(item.high for item in window)


def _daily_closes(view: SessionView, sessions: int) -> list[float]:
    return [item.last_close for item in view.past[-sessions:]]


def daily_average(view: SessionView, at: int, sessions: int) -> tuple[float, float] | None:
    """Return the close of a bar (-1: the last one of the session before) and the average of daily closes then."""
    days = view.cached(_daily_closes, sessions)
    days = days[1:] if at >= 0 and len(days) == sessions else days
    if at >= 0:
        days = [*days, view.bars.close[at]]
    return (days[-1], fmean(days)) if len(days) == sessions else None


def _last_closes(view: SessionView, count: int) -> list[float]:
    """Return the last ``count`` closes before the session, or as many as there are, oldest first."""
    found: list[tuple[float, ...]] = []
    for item in reversed(view.past):
        if sum(map(len, found)) >= count:
            break
        found.insert(0, item.all_closes())
    return [*chain.from_iterable(found)][-count:]


def _bar_average(view: SessionView, tail: list[float], at: int, count: int) -> tuple[float, float] | None:
    """Return the close of a bar (-1: the last one of the session before) and the average of the bars up to it."""
    window = [*tail, *view.bars.close[: at + 1]][-count:]
    return (window[-1], fmean(window)) if len(window) == count else None
