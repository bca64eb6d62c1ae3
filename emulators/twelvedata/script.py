"""The script of a market: the splits, dividends and renames that its raw bars and the emulator's endpoints show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from emulators.twelvedata.actions import NEVER, ScriptedDividend, ScriptedSplit


@dataclass(frozen=True)
class Rename:
    """``symbol`` was called ``former`` up to ``last_day`` (exchange-local)."""

    former: str
    symbol: str
    last_day: date


@dataclass(frozen=True)
class MarketScript:
    """What happens to the shares of a market, by present symbol.

    The bars follow the actions that are never withdrawn. A withdrawn one was an error of the vendor, which only its
    endpoints show for a while.
    """

    splits: Mapping[str, Sequence[ScriptedSplit]] = field(default_factory=dict)
    dividends: Mapping[str, Sequence[ScriptedDividend]] = field(default_factory=dict)
    renames: Sequence[Rename] = ()

    def present(self, symbol: str) -> str:
        """Return the present symbol of a present or former one."""
        return next((item.symbol for item in self.renames if item.former == symbol), symbol)

    def has_bars(self, symbol: str, day: date) -> bool:
        """Return whether a session's bars are under this symbol: under a former one up to its last day."""
        return all(
            day <= item.last_day if item.former == symbol else day > item.last_day
            for item in self.renames
            if symbol in (item.former, item.symbol)
        )

    def ratio_after(self, symbol: str, day: date) -> float:
        """Return how many of today's shares one share of ``day`` has become: the product of the later ratios."""
        splits = self.splits.get(self.present(symbol), ())
        return math.prod(item.new / item.old for item in splits if item.withdrawn == NEVER and day < item.ex_date)

    def paid_on(self, symbol: str, day: date) -> float:
        """Return the dividends (dollars per share of that day) whose ex-date is ``day``."""
        dividends = self.dividends.get(self.present(symbol), ())
        return sum(item.amount for item in dividends if item.withdrawn == NEVER and item.ex_date == day)

    def to_json(self) -> dict[str, Any]:
        """Return the splits and dividends that are always shown as a JSON object: ``from_json`` reads it."""
        return {
            "splits": {
                symbol: [{"ex_date": item.ex_date.isoformat(), "new": item.new, "old": item.old} for item in items]
                for symbol, items in self.splits.items()
            },
            "dividends": {
                symbol: [{"ex_date": item.ex_date.isoformat(), "amount": item.amount} for item in items]
                for symbol, items in self.dividends.items()
            },
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> MarketScript:
        """Return the script of a JSON object. Raise KeyError, TypeError or ValueError for another object."""
        return cls(
            {symbol: [ScriptedSplit(**_dated(item)) for item in items] for symbol, items in body["splits"].items()},
            {
                symbol: [ScriptedDividend(**_dated(item)) for item in items]
                for symbol, items in body["dividends"].items()
            },
        )


def _dated(item: Mapping[str, Any]) -> dict[str, Any]:
    return {**item, "ex_date": date.fromisoformat(item["ex_date"])}


NO_SCRIPT = MarketScript()
