"""What a backtest says about each rule: how often it fires, and what follows its alerts.

Returns are fractions (0.0123 is 1.23 %) from the close of the alert's bar, in the alert's direction: the return after a
down alert counts with its sign changed. Rates are fractions from 0 to 1. Costs, slippage and dividends are not
included.

The baseline answers: what did the same shares return at the same time of day anyway? For each alert it is the mean
return over the same horizon of all bars of its symbol in the same slot, over all sessions of the period, the alert's
own bar included and in the alert's direction. The baseline of a rule is the mean over its alerts. Bars after an alert
are part of it: the baseline describes the period, and no alert depends on it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barflow.alerts.evaluate import Event
from barflow.alerts.rules import Rule
from barflow.backtest.bootstrap import Interval, interval
from barflow.backtest.prices import HORIZONS, Numbers, Prices
from barflow.backtest.result import Backtest
from barflow.backtest.thresholds import Sensitivity
from barflow.market.sessions import Session

SESSIONS_A_MONTH = 21
NOT_MOVED: Mapping[str, Sequence[Sensitivity]] = MappingProxyType({})


@dataclass(frozen=True)
class Returns:
    """What followed a rule's alerts over one horizon. A value is None where no alert has a return.

    Attributes:
        alerts: The alerts that have a return over this horizon.
        sessions: The sessions of these alerts.
        mean: Their mean return.
        mean_interval: The 95 % interval of the mean, None with fewer than 5 sessions.
        baseline: The mean return of the same shares at the same times of day.
        hit_rate: The share of these alerts with a return above 0.
        hit_interval: The 95 % interval of the hit rate.
        baseline_hit_rate: The hit rate of the same shares at the same times of day.
    """

    alerts: int = 0
    sessions: int = 0
    mean: float | None = None
    mean_interval: Interval | None = None
    baseline: float | None = None
    hit_rate: float | None = None
    hit_interval: Interval | None = None
    baseline_hit_rate: float | None = None


@dataclass(frozen=True)
class Silence:
    """The longest stretch of sessions without an alert of a rule, for any symbol."""

    sessions: int = 0
    first: date | None = None
    last: date | None = None


@dataclass(frozen=True)
class RuleStatistics:
    """The figures of one rule.

    Attributes:
        alerts: Alerts in the period. ``up`` and ``down`` are those with a direction.
        a_month: Alerts per 21 sessions.
        cooled_down: Alerts that a cool-down dropped.
        by_month: Alerts of each month of the period (New York), such as ``2025-07``.
        by_symbol: Alerts of each symbol that has one, most first; ``*`` is the feed.
        returns: What followed the alerts, by horizon.
        sensitivity: How the count changes with each threshold.
    """

    rule: str
    alerts: int
    up: int
    down: int
    a_month: float
    cooled_down: int
    by_month: dict[str, int]
    by_symbol: dict[str, int]
    longest_silence: Silence
    returns: dict[str, Returns]
    sensitivity: tuple[Sensitivity, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object, without the rule's id."""
        return {name: value for name, value in asdict(self).items() if name != "rule"}


def statistics(
    backtest: Backtest,
    rules: Sequence[Rule],
    prices: Prices,
    sensitivity: Mapping[str, Sequence[Sensitivity]] = NOT_MOVED,
) -> list[RuleStatistics]:
    """Return the figures of each rule, in the order of the rules.

    ``prices`` are the closes of the backtest's period. ``sensitivity`` is by rule id.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, event in enumerate(backtest.events):
        places[event.rule.id].append(place)
    dropped = Counter(event.rule.id for event in backtest.cooled_down)
    followed = _Followed.of(backtest.events, prices)
    found = []
    for rule in rules:
        events = [backtest.events[place] for place in places[rule.id]]
        sides = Counter(event.direction for event in events)
        found.append(
            RuleStatistics(
                rule=rule.id,
                alerts=len(events),
                up=sides["up"],
                down=sides["down"],
                a_month=len(events) * SESSIONS_A_MONTH / max(1, len(prices.sessions)),
                cooled_down=dropped[rule.id],
                by_month=_by_month(events, prices.sessions),
                by_symbol=dict(Counter(event.symbol for event in events).most_common()),
                longest_silence=longest_silence({event.session_date for event in events}, prices.sessions),
                returns=followed.returns(places[rule.id]),
                sensitivity=tuple(sensitivity.get(rule.id, ())),
            )
        )
    return found


def _by_month(events: Sequence[Event], sessions: Sequence[Session]) -> dict[str, int]:
    months = dict.fromkeys((item.month for item in sessions), 0)
    for event in events:
        months[f"{event.session_date:%Y-%m}"] += 1
    return months


def longest_silence(days: set[date], sessions: Sequence[Session]) -> Silence:
    """Return the longest stretch of sessions without one of the ``days``; the first one where two are equal."""
    longest, start = Silence(), 0
    for place, item in enumerate(sessions):
        if item.session_date in days:
            start = place + 1
        elif place - start >= longest.sessions:
            longest = Silence(place - start + 1, sessions[start].session_date, item.session_date)
    return longest


class _Followed:
    """What followed each event over each horizon: its return, its baseline and the baseline's hit rate, or NaN."""

    def __init__(self, rows: NDArray[np.intp], columns: Mapping[str, Numbers]) -> None:
        """Hold the number of each event's session, and by horizon an array of 3 values × events."""
        self._rows, self._columns = rows, columns

    @classmethod
    def of(cls, events: Sequence[Event], prices: Prices) -> _Followed:
        """Look the events up, one symbol after the other. An event of the feed, or without a bar, has no return."""
        rows = np.zeros(len(events), dtype=np.intp)
        columns = {horizon: np.full((3, len(events)), np.nan) for horizon in HORIZONS}
        of_symbol: dict[str, list[int]] = defaultdict(list)
        for place, event in enumerate(events):
            of_symbol[prices.instruments.present_on(event.symbol, event.session_date)].append(place)
        for symbol in prices.symbols:
            if not (places := of_symbol[symbol]):
                continue
            bars = [prices.place(events[place].session_date, events[place].bar_start) for place in places]
            rows[places], slots = np.array(bars, dtype=np.intp).T
            is_down = np.array([events[place].direction == "down" for place in places])
            for horizon, column in columns.items():
                column[:, places] = _looked_up(prices.returns(symbol, horizon), rows[places], slots, is_down)
        return cls(rows, columns)

    def returns(self, places: Sequence[int]) -> dict[str, Returns]:
        """Return what followed the events at these places, by horizon."""
        rows = self._rows[places]
        return {horizon: self._summary(column[:, places], rows) for horizon, column in self._columns.items()}

    @staticmethod
    def _summary(column: Numbers, rows: NDArray[np.intp]) -> Returns:
        there = ~np.isnan(column[0])
        (value, usual, usual_hits), rows = column[:, there], rows[there]
        if not len(rows):
            return Returns()
        hits = (value > 0).astype(float)
        return Returns(
            alerts=len(rows),
            sessions=len(np.unique(rows)),
            mean=float(value.mean()),
            mean_interval=interval(value, rows),
            baseline=float(usual.mean()),
            hit_rate=float(hits.mean()),
            hit_interval=interval(hits, rows),
            baseline_hit_rate=float(usual_hits.mean()),
        )


def _looked_up(
    returns: Numbers, rows: NDArray[np.intp], slots: NDArray[np.intp], is_down: NDArray[np.bool_]
) -> Numbers:
    """Return the return, the baseline and its hit rate of bars of one symbol, in their direction.

    ``returns`` are those of all bars, an array of sessions × slots.
    """
    count = np.maximum(1, (~np.isnan(returns)).sum(axis=0))
    mean, above, below = (np.nansum(returns, axis=0), (returns > 0).sum(axis=0), (returns < 0).sum(axis=0))
    sign = np.where(is_down, -1.0, 1.0)
    hits = np.where(is_down, below[slots], above[slots]) / count[slots]
    return np.array([returns[rows, slots] * sign, mean[slots] / count[slots] * sign, hits])
