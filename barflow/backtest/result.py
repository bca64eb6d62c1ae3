"""The result of a backtest: what the rules would have fired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from barflow.alerts.evaluate import Event


@dataclass(frozen=True)
class Backtest:
    """The alerts of a backtest, in order of bars, then of symbols and rules.

    Attributes:
        events: The alerts that fired.
        cooled_down: Alerts that did not fire, because their rule was within its cool-down.
        symbols: The symbols that were read, sorted.
        first: The first session that could fire (New York).
        last: The last one (New York).
        bars: How many bars were evaluated, without those that the rules only look back at.
        notes: What a reader must know, such as a split that is not known.
    """

    events: list[Event]
    cooled_down: list[Event]
    symbols: tuple[str, ...]
    first: date
    last: date
    bars: int
    notes: tuple[str, ...] = ()


def in_order(events: list[Event]) -> list[Event]:
    """Return events in order of bars, then of symbols and rules."""
    return sorted(events, key=lambda event: (event.bar_start, event.symbol, event.rule.id))
