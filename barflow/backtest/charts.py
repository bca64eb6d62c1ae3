"""The geometry of the report's charts. Positions and sizes are percent of the chart, so that text is not stretched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from barflow.backtest.prices import HORIZONS
from barflow.backtest.statistics import Returns
from barflow.backtest.thresholds import Sensitivity

# The widest bar, in percent of the chart: one month alone does not fill it.
WIDEST = 8.0
# How many month labels fit a phone.
LABELS = 6
# The names are left of this, in percent of the chart of returns.
NAMES, RIGHT = 30.0, 93.0
# Returns within a session and over sessions have different sizes, so each group has its own scale.
GROUPS = (("30min", "1h", "close"), ("1_session", "5_sessions"))


class Bar(NamedTuple):
    """A bar and what it says. ``y`` is its top; its label is shown if there is room."""

    x: float
    y: float
    width: float
    height: float
    label: str
    value: int
    is_labelled: bool = True


class Row(NamedTuple):
    """One horizon: its name, the height of its middle, and the places of its figures, None where there is none."""

    horizon: str
    name: str
    y: float
    mean: float | None
    low: float | None
    high: float | None
    baseline: float | None


@dataclass(frozen=True)
class ReturnsChart:
    """Rows of horizons on one scale. ``ticks`` are places with the return (a fraction) there; ``zero`` is a place."""

    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, float], ...]
    zero: float


def months_chart(by_month: Mapping[str, int]) -> list[Bar]:
    """Return a bar for each month."""
    most, slot = max(by_month.values(), default=0) or 1, 100 / max(1, len(by_month))
    width, step = min(WIDEST, slot * 0.7), -(-len(by_month) // LABELS)
    return [
        _bar(place * slot + (slot - width) / 2, width, value / most, month, value, is_labelled=place % step == 0)
        for place, (month, value) in enumerate(by_month.items())
    ]


def _bar(x: float, width: float, height: float, label: str, value: int, *, is_labelled: bool = True) -> Bar:
    """Return a bar of a height from 0 to 1."""
    shown = round(100 * height, 2)
    return Bar(round(x, 2), round(100 - shown, 2), round(width, 2), shown, label, value, is_labelled)


def returns_charts(returns: Mapping[str, Returns]) -> list[ReturnsChart]:
    """Return a chart for each group of horizons that has a return."""
    charts = (_returns_chart({name: returns[name] for name in group}) for group in GROUPS)
    return [chart for chart in charts if chart]


def _returns_chart(returns: Mapping[str, Returns]) -> ReturnsChart | None:
    values = [
        value
        for item in returns.values()
        for value in (item.mean, item.baseline, *(item.mean_interval or ()))
        if value is not None
    ]
    if not values:
        return None
    low, high = min(0.0, *values), max(0.0, *values)
    reach = (high - low) or 0.001

    def place(value: float | None) -> float | None:
        return None if value is None else round(NAMES + (value - low) / reach * (RIGHT - NAMES), 2)

    rows = []
    for at, (horizon, item) in enumerate(returns.items()):
        low_end, high_end = item.mean_interval or (None, None)
        y = round((at + 0.5) / len(returns) * 100, 2)
        found = (place(item.mean), place(low_end), place(high_end), place(item.baseline))
        rows.append(Row(horizon, HORIZONS[horizon], y, *found))
    ticks = [(place(value) or NAMES, value) for value in (low, high) if value]
    return ReturnsChart(tuple(rows), tuple(ticks), place(0.0) or NAMES)


def sensitivity_chart(item: Sensitivity, alerts: int) -> list[Bar]:
    """Return a bar for each position of the threshold, from -20 % to +20 %, the rule's own in the middle."""
    counts = [(int(name), value) for name, value in item.counts.items()] + [(0, alerts)]
    most, slot = max(value for _, value in counts) or 1, 100 / len(counts)
    return [
        _bar(place * slot + slot * 0.1, slot * 0.8, value / most, f"{percent:+d}" if percent else "0", value)
        for place, (percent, value) in enumerate(sorted(counts))
    ]
