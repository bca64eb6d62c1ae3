"""What a backtest found, for its readers: JSON, the HTML report, and the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from barflow.backtest.statistics import RuleStatistics


@dataclass(frozen=True)
class Summary:
    """A backtest's period, its figures per rule, and the command that made it.

    Attributes:
        created_at: When the backtest ran (UTC).
        source: The name of the recording, or ``archive``.
        first: The first session of the period.
        last: The last session of the period, included.
        sessions: How many sessions of the exchange it has.
        symbols: The symbols that have a bar in it.
        bars: How many 5-minute bars were evaluated.
        adjust: ``splits``, or ``none`` if prices were compared as they are.
        as_known: Whether each moment saw only what was known then.
        rules: The figures of each rule.
        conditions: When each rule fires, by its id.
        notes: What the reader must know, one sentence each.
    """

    created_at: datetime
    command: str
    source: str
    first: date
    last: date
    sessions: int
    symbols: tuple[str, ...]
    bars: int
    adjust: str
    as_known: bool
    rules: tuple[RuleStatistics, ...]
    conditions: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object, with the rules by id."""
        found = asdict(self)
        del found["conditions"]
        found["rules"] = {
            item.rule: {"condition": self.conditions.get(item.rule, ""), **item.to_json()} for item in self.rules
        }
        return found
