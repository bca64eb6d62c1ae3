"""The values that a condition may name, and what each needs of the past.

Windows are whole numbers in the text of a condition, so its need is known before any bar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

# A half day has the fewest bars of all sessions.
HALF_DAY_BARS = 42
# Weights older than this many times n are below 0.01 % in an exponential average.
EMA_WINDOWS = 5


class Past(NamedTuple):
    """How many sessions before the evaluated one a value needs.

    Attributes:
        sessions: Sessions of which it needs the last close, the high and the low.
        bars: Sessions of which it needs the close and the volume of every bar.
        prices: Sessions of which it needs the open, the high and the low of every bar.
    """

    sessions: int = 0
    bars: int = 0
    prices: int = 0


class Value(NamedTuple):
    """A value that a condition names: ``close``, ``sma(20)``, ``earlier(3).low`` or ``crosses_above(close, vwap)``.

    ``of("SPY").close`` has the name ``of``, the column ``close`` and the symbol ``SPY``.
    """

    name: str
    n: int = 0
    column: str = ""
    compared: tuple[Value | float, ...] = ()
    symbol: str = ""


class Operation(NamedTuple):
    """An operation of a condition on its parts: a sign of CEL, or ``?`` with a condition and two results."""

    sign: str
    parts: tuple[Tree, ...]


Tree = Value | float | Operation


class Window(NamedTuple):
    """The allowed ``n`` of a function, and what the function needs of the past for one ``n``."""

    least: int
    most: int
    past: Callable[[int], Past]
    step: int = 1

    @property
    def allowed(self) -> str:
        """Return the allowed values of ``n`` as text."""
        multiple = f", a multiple of {self.step}" if self.step > 1 else ""
        return f"a whole number from {self.least} to {self.most}{multiple}"


def sessions_with(bars: int) -> int:
    """Return how many sessions before the evaluated one hold this number of bars, even if they are half days."""
    return 1 + bars // HALF_DAY_BARS


def _closes(bars: int) -> Past:
    return Past(bars=sessions_with(bars))


def _prices(bars: int) -> Past:
    return Past(bars=sessions_with(bars), prices=sessions_with(bars))


def column_past(column: str, bars: int) -> Past:
    """Return what the values of a column of this number of bars need."""
    return _closes(bars) if column in ("close", "volume") else _prices(bars)


NAMES: Mapping[str, Past] = {
    "open": Past(),
    "high": Past(),
    "low": Past(),
    "close": Past(),
    "volume": Past(),
    "vwap": Past(),
    "prev_close": Past(sessions=1),
    "session_open": Past(),
    "session_high": Past(),
    "session_low": Past(),
    "change_pct": Past(sessions=1),
    "gap_pct": Past(sessions=1),
    "minutes_since_open": Past(),
    "minutes_to_close": Past(),
}
FUNCTIONS: Mapping[str, Window] = {
    "sma": Window(1, 390, _closes),
    "ema": Window(1, 78, lambda n: _closes(EMA_WINDOWS * n)),
    "rsi": Window(1, 389, lambda n: _closes(n + 1)),
    "stdev": Window(2, 390, _closes),
    "atr": Window(1, 389, lambda n: _prices(n + 1)),
    "highest": Window(1, 390, _prices),
    "lowest": Window(1, 390, _prices),
    "volume_times": Window(1, 60, lambda n: Past(sessions=n, bars=n)),
    "daily_sma": Window(2, 250, lambda n: Past(sessions=n)),
    "daily_highest": Window(1, 250, lambda n: Past(sessions=n)),
    "daily_lowest": Window(1, 250, lambda n: Past(sessions=n)),
    "rise_pct": Window(5, 390, lambda n: Past(), step=5),
    "fall_pct": Window(5, 390, lambda n: Past(), step=5),
}
CROSSINGS = ("crosses_above", "crosses_below")
EARLIER = Window(1, 389, lambda n: _closes(n + 1))
COLUMNS = ("open", "high", "low", "close", "volume")
# What a condition can name of another symbol. The minutes are the same for all symbols.
OF_OTHERS = tuple(name for name in NAMES if not name.startswith("minutes"))
OF_FORM = 'of("SPY").change_pct'
# Its bars come from the stored state, which then holds every bar's open, high and low.
OF_PAST = Past(sessions=1, bars=1, prices=1)
# The last bar before the session, with which a crossing compares the session's first bar.
BAR_BEFORE: Mapping[str, Past] = {name: column_past(name, 1) for name in COLUMNS}
