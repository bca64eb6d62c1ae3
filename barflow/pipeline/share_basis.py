"""The share basis of daily metrics: the splits around the sessions of a load, and those that changed with it.

A metric is in the shares of its own session. So a split that is learned late, changed or withdrawn changes the metrics
from its ex-date on, as far as the longest window reaches, and no bar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from barflow.market.actions import Split, Version
from barflow.market.adjustment import factor_ranges
from barflow.pipeline.frames import small_frame

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class ShareBasis:
    """The splits in effect by symbol, and by symbol the ex-dates at which they changed."""

    splits: dict[str, list[Split]] = field(default_factory=dict)
    changed: dict[str, list[date]] = field(default_factory=dict)

    def factors(self, spark: SparkSession) -> DataFrame:
        """Return the split factors of the sessions before a split (symbol, first_day, last_day, split)."""
        rows = [
            {"symbol": symbol, "first_day": str(item.first_day), "last_day": str(item.last_day), "split": item.split}
            for symbol, splits in self.splits.items()
            for item in factor_ranges(splits, date.max, lambda day: None)[0]
        ]
        return small_frame(spark, rows, "symbol string, first_day date, last_day date, split double")

    def rebased(self, spark: SparkSession) -> DataFrame:
        """Return the ex-dates at which the splits of a symbol changed (symbol, ex_dates)."""
        rows = [{"symbol": symbol, "ex_dates": [str(day) for day in days]} for symbol, days in self.changed.items()]
        return small_frame(spark, rows, "symbol string, ex_dates array<date>")


def share_basis(
    stored: Mapping[str, Sequence[Split]], announced: Mapping[str, Iterable[Version]], whole: frozenset[str]
) -> ShareBasis:
    """Return the basis of a load from the splits that are stored and the actions that are announced. Pure.

    The metrics of the symbols in ``whole`` are all written anyway.
    """
    splits = {symbol: list(found) for symbol, found in stored.items()}
    changed = {}
    for symbol, versions in announced.items():
        splits[symbol] = [
            item.action
            for item in versions
            if item.known_until is None and isinstance(item.action, Split) and item.action.ratio != 1
        ]
        old = {item.ex_date: item.ratio for item in stored.get(symbol, ())}
        new = {item.ex_date: item.ratio for item in splits[symbol]}
        days = sorted(day for day in {*old, *new} if old.get(day) != new.get(day))
        if days and symbol not in whole:
            changed[symbol] = days
    return ShareBasis(splits, changed)
