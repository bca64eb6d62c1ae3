"""The closes of a backtest's period as arrays, and the returns that follow each bar.

A return is that of the price alone: close / close - 1, a fraction. Splits are taken out, dividends are not added.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from barflow.backtest.series import Series
from barflow.market.actions import split_factors
from barflow.market.instruments import Instruments
from barflow.market.sessions import BAR, sessions_between

Numbers = NDArray[np.float64]
# The horizons of a return, and what each one says. Minutes and sessions count from the close of the alert's bar.
HORIZONS: Mapping[str, str] = MappingProxyType(
    {
        "30min": "after 30 minutes",
        "1h": "after 1 hour",
        "close": "at the close",
        "1_session": "after 1 session",
        "5_sessions": "after 5 sessions",
    }
)
BARS_AHEAD = {"30min": 6, "1h": 12}
SESSIONS_AHEAD = {"close": 0, "1_session": 1, "5_sessions": 5}
MOST_BARS = 78
# Below this, a return is the rounding of a split's factor.
DECIMALS = 9


class Prices:
    """The closes (dollars) of a period by symbol, session and slot.

    ``sessions`` are the exchange's sessions of the period, in order. A slot is a bar's number in its session, from 0.
    """

    def __init__(self, first: date, last: date, until: datetime, instruments: Instruments | None = None) -> None:
        """Open the period from ``first`` to ``last``, both included. ``until`` (UTC) is the end of the data."""
        self.instruments = instruments or Instruments()
        self.sessions = sessions_between(first, last)
        self._rows = {item.session_date: row for row, item in enumerate(self.sessions)}
        self._is_over = np.array([item.closes <= until for item in self.sessions], dtype=bool)
        self._closes: dict[str, Numbers] = {}

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have a bar in the period."""
        return tuple(self._closes)

    def add(self, series: Series) -> None:
        """Add a share's closes, in the shares of the period's last session. Other sessions are left out."""
        closes = np.full((len(self.sessions), MOST_BARS), np.nan)
        factors = split_factors(series.splits or (), self.sessions[-1].session_date)
        for place, day in enumerate(series.days):
            if day in self._rows:
                bars = slice(series.starts[place], series.starts[place + 1])
                closes[self._rows[day], series.slots[bars]] = series.prices["close"][bars] * factors.at(day).price
        if not np.isnan(closes).all():
            self._closes[series.symbol] = closes

    def place(self, day: date, bar_start: datetime) -> tuple[int, int]:
        """Return the session's number and the slot of a bar (its open, UTC). Raise KeyError outside the period."""
        row = self._rows[day]
        return row, (bar_start - self.sessions[row].opens) // BAR

    def returns(self, symbol: str, horizon: str) -> Numbers:
        """Return the returns that follow each bar: an array of sessions × slots, NaN where there is none.

        There is none where the bar or the later bar is missing, where the session ends before the horizon, at the
        last bar of a session for ``close``, and after the end of the data.
        """
        closes = self._closes[symbol]
        later = np.full(closes.shape, np.nan)
        if horizon in BARS_AHEAD:
            ahead = BARS_AHEAD[horizon]
            later[:, :-ahead] = closes[:, ahead:]
        else:
            ahead = SESSIONS_AHEAD[horizon]
            last, slots = self._session_closes(closes)
            later[: max(0, len(last) - ahead)] = last[ahead:, None]
            if not ahead:
                later[np.arange(MOST_BARS)[None, :] >= slots[:, None]] = np.nan
        return np.round(later / closes - 1, DECIMALS)

    def _session_closes(self, closes: Numbers) -> tuple[Numbers, NDArray[np.intp]]:
        """Return the last close of each session that is over, else NaN, and its slot."""
        there = ~np.isnan(closes)
        slots = MOST_BARS - 1 - np.argmax(there[:, ::-1], axis=1)
        last = closes[np.arange(len(closes)), slots]
        return np.where(self._is_over, last, np.nan), slots
