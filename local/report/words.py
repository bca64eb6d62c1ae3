"""The words of the demo's report: labels of the metrics, descriptions of the source, and formats of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from barflow.market.sessions import new_york

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Metric:
    """A column of market.daily_metrics. ``spelled`` names its format; ``needs`` is the history that it needs."""

    name: str
    label: str
    spelled: str
    unit: str
    meaning: str
    needs: str


METRICS = (
    Metric("prev_close", "Previous close", "dollars", "dollars", "last price of the session before", "2 sessions"),
    Metric("return_1d", "Return", "change", "percent", "close ÷ previous close − 1", "2 sessions"),
    Metric("gap_open", "Gap at the open", "change", "percent", "open ÷ previous close − 1", "2 sessions"),
    Metric("range_pct", "Range", "percent", "percent", "(high − low) ÷ close", "1 session"),
    Metric("sma_5", "5-session average", "dollars", "dollars", "mean of the last 5 closes", "5 sessions"),
    Metric("sma_20", "20-session average", "dollars", "dollars", "mean of the last 20 closes", "20 sessions"),
    Metric("sma_50", "50-session average", "dollars", "dollars", "mean of the last 50 closes", "50 sessions"),
    Metric("rsi_14", "RSI 14", "number", "0 to 100", "share of gains in the last 14 moves", "15 sessions"),
    Metric("realized_vol", "Realised volatility", "percent", "percent", "5-minute returns of the session", "2 bars"),
    Metric(
        "volatility_20", "Volatility 20", "percent", "percent a year", "of the last 20 daily returns", "21 sessions"
    ),
    Metric("atr_14", "ATR 14", "dollars", "dollars", "mean true range of 14 sessions", "15 sessions"),
    Metric(
        "volume_ratio_20", "Volume ratio 20", "times", "times", "volume ÷ mean of 20 sessions before", "21 sessions"
    ),
)


@dataclass(frozen=True)
class Source:
    """The source of the bars: its kind, the station that served them, a headline and a sentence for the reader."""

    kind: str
    station: str
    headline: str
    sentence: str


def describe_source(source: Mapping[str, Any]) -> Source:
    """Return a state's source in words, so that nobody mistakes synthetic or old prices for the market's."""
    if source["kind"] == "replay":
        return Source(
            "replay",
            "API emulator",
            "Recorded bars",
            f"Replayed from {Path(source['path']).name}, as of the close of its last bar. Not today’s market.",
        )
    if source["kind"] == "live":
        return Source(
            "live",
            "Twelve Data",
            "Bars from Twelve Data",
            "Unadjusted, as Twelve Data sends them. Recent bars may still be corrected at the source.",
        )
    return Source(
        "synthetic",
        "API emulator",
        "Synthetic bars, not the market",
        "The demo generated these prices and volumes, so that it runs without an API key. "
        "They say nothing about the companies with these symbols.",
    )


def dollars(value: float) -> str:
    """Format ``1234.5`` as ``1,234.50``; below a dollar, with four decimals."""
    return _minus(f"{value:,.{2 if abs(value) >= 1 else 4}f}")


def percent(value: float) -> str:
    """Format ``0.0123`` as ``1.23 %``."""
    return _minus(f"{value * 100:.2f}\N{NO-BREAK SPACE}%")


def change(value: float) -> str:
    """Format ``0.0123`` as ``+1.23 %``."""
    return _minus(f"{value * 100:+.2f}\N{NO-BREAK SPACE}%")


def move(value: float) -> str:
    """Format ``-1.5`` as ``−1.50``, always with its sign."""
    return _minus(f"{value:+,.2f}")


def number(value: float) -> str:
    """Format ``54.321`` as ``54.3``."""
    return _minus(f"{value:.1f}")


def times(value: float) -> str:
    """Format ``1.234`` as ``1.23×``."""
    return f"{value:.2f}×"


def count(value: float) -> str:
    """Format ``7500`` as ``7,500``."""
    return f"{value:,}"


def shares(value: int) -> str:
    """Format ``12345678`` as ``12.3 M``."""
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.3g}\N{NO-BREAK SPACE}{letter}"
    return str(value)


def day(value: date) -> str:
    """Format a day, or a moment's day in New York, as ``Wed, Jul 2``."""
    local = new_york(value).date() if isinstance(value, datetime) else value
    return f"{local:%a}, {local:%b} {local.day}"


def clock(value: datetime) -> str:
    """Format a moment as ``15:55`` (New York)."""
    return f"{new_york(value):%H:%M}"


def moment(value: datetime) -> str:
    """Format a moment as ``Wednesday, July 2, 2025, 15:55 EDT`` (New York)."""
    local = new_york(value)
    return f"{local:%A}, {local:%B} {local.day}, {local.year}, {local:%H:%M %Z}"


def _minus(text: str) -> str:
    return text.replace("-", MINUS)


_SPELLINGS = (dollars, percent, change, move, number, times, count, shares, day, clock, moment)
FILTERS: dict[str, Callable[..., str]] = {made.__name__: made for made in _SPELLINGS}
FILTERS["spell"] = lambda value, how: FILTERS[how](value)
