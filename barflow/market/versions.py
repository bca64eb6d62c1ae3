"""Versions of a bar: each set of values that the source gave it, and from when until when they were known. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class BarVersion:
    """One version of a bar: prices in dollars, volume in shares, times in UTC.

    ``known_from`` is when the answer that brought it was asked for, ``known_until`` when that of the next version was;
    None for the current one. ``revision`` is its place among the versions of the bar, from 0.
    """

    ts: datetime
    open: float
    high: float
    low: float
    close: float
    volume: int
    known_from: datetime
    revision: int = 0
    known_until: datetime | None = None

    @classmethod
    def of(cls, values: Sequence[Any], known_from: datetime) -> BarVersion:
        """Return the version with these values: ts, open, high, low, close, volume."""
        ts, opened, high, low, close, volume = values
        return cls(ts, opened, high, low, close, volume, known_from)

    @property
    def values(self) -> tuple[float, ...]:
        """Return prices and volume."""
        return (self.open, self.high, self.low, self.close, self.volume)


def history(versions: Iterable[BarVersion]) -> list[BarVersion]:
    """Return the versions by ts and known_from, with revision and known_until. The last one of each bar is current.

    A version with the values of the one before it is a repetition and left out.
    """
    by_bar: dict[datetime, list[BarVersion]] = defaultdict(list)
    for item in versions:
        by_bar[item.ts].append(item)
    found: list[BarVersion] = []
    for ts in sorted(by_bar):
        kept: list[BarVersion] = []
        for item in sorted(by_bar[ts], key=lambda item: item.known_from):
            if kept and kept[-1].values == item.values:
                continue
            if kept:
                kept[-1] = replace(kept[-1], known_until=item.known_from)
            kept.append(replace(item, revision=len(kept), known_until=None))
        found += kept
    return found
