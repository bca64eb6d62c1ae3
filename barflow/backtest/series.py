"""The bars of one share as arrays, oldest first: what a backtest reads of a source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from barflow.alerts.history import PRICES as PACKED_PRICES
from barflow.alerts.history import EvaluatedSession, slot_numbers
from barflow.market.actions import Split
from barflow.market.bars import PRICES, SessionBars
from barflow.market.sessions import session

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Series:
    """One share's bars and splits, by its present symbol.

    Attributes:
        symbol: The present symbol.
        days: The days of its sessions (New York), oldest first.
        starts: The place of each session's first bar, and then the number of bars.
        slots: The number of each bar's slot in its session. Slot 0 opens the session.
        prices: Open, high, low and close by their names, in dollars as stored.
        volume: Shares as stored.
        splits: The splits that are known. None: all prices are compared as they are.
    """

    symbol: str
    days: tuple[date, ...]
    starts: Places
    slots: NDArray[np.uint8]
    prices: dict[str, Floats]
    volume: NDArray[np.int64]
    splits: tuple[Split, ...] | None = ()

    @classmethod
    def of(cls, symbol: str, sessions: Iterable[SessionBars], splits: Sequence[Split] | None = ()) -> Series:
        """Return the series of a share's sessions, in any order."""
        found = sorted(sessions, key=lambda bars: bars.session_date)
        columns = {name: [value for bars in found for value in getattr(bars, name)] for name in (*PRICES, "volume")}
        return cls(
            symbol,
            tuple(bars.session_date for bars in found),
            np.cumsum([0, *map(len, found)]),
            np.frombuffer(b"".join(map(slot_numbers, found)), np.uint8),
            {name: np.array(columns[name], np.float64) for name in PRICES},
            np.array(columns["volume"], np.int64),
            None if splits is None else tuple(splits),
        )

    def __len__(self) -> int:
        return int(self.starts[-1])

    def session(self, place: int) -> SessionBars:
        """Return one of its sessions, as the evaluation takes it."""
        day, part = self.days[place], slice(self.starts[place], self.starts[place + 1])
        traded = session(day)
        assert traded is not None, "only sessions are stored"
        slots = self.slots[part].tolist()
        prices = {name: values[part].tolist() for name, values in self.prices.items()}
        opens = [*map(traded.slots.__getitem__, slots)]
        return SessionBars(
            self.symbol, day, ts=opens, **prices, volume=self.volume[part].tolist(), revision=[0] * len(slots)
        )

    def session_slots(self, place: int) -> bytes:
        """Return the slot numbers of one of its sessions."""
        return self.slots[self.starts[place] : self.starts[place + 1]].tobytes()

    def packed(self, place: int, *, prices: bool) -> EvaluatedSession:
        """Return one of its sessions, as the evaluation looks back at it."""
        part = slice(self.starts[place], self.starts[place + 1])
        columns = {name: values[part] for name, values in self.prices.items()}
        return EvaluatedSession(
            self.days[place],
            1,
            float(columns["high"].max()),
            float(columns["low"].min()),
            self.slots[part].tobytes(),
            bytes(len(columns["close"])),
            columns["close"].tobytes(),
            self.volume[part].tobytes(),
            b"".join(columns[name].tobytes() for name in PACKED_PRICES) if prices else b"",
        )

    @cached_property
    def places(self) -> dict[date, int]:
        """Return the place of each session by its day."""
        return {day: place for place, day in enumerate(self.days)}
