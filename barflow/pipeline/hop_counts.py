"""Counts of every hop for a group of symbols: staged bars, Parquet rows and warehouse rows by session.

A group is small enough to be counted in memory, also if the archive is large. All names of a share are in one group,
because its gaps are found across its names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby, product

from barflow.lake.partitions import Lake
from barflow.market.counts import SessionCounts, SessionKey
from barflow.market.instruments import Instruments
from barflow.market.sessions import sessions_between
from barflow.staging.sessions import Staging

# Each takes about 2 kB of memory.
SESSIONS_PER_GROUP = 20_000
# The assumed number of sessions of a symbol in a full check: eight years.
SESSIONS_OF_A_SYMBOL = 2_000


@dataclass(frozen=True)
class Scope:
    """The sessions to count of each symbol: those from a day on, and single earlier ones.

    If ``since`` is None, every session is counted. If it is date.max, only the single ones are.
    """

    since: date | None = None
    keys: frozenset[SessionKey] = frozenset()

    def __contains__(self, key: SessionKey) -> bool:
        """Return whether a session is counted."""
        return self.since is None or key[1] >= self.since.isoformat() or key in self.keys

    def months(self, symbols: Iterable[str], last: date) -> list[tuple[str, str]]:
        """Return the (symbol, month) partitions that hold the sessions until ``last``, in the order of the symbols."""
        recent = [*_months(self.since, last)] if self.since and self.since <= last else []
        found: dict[str, set[str]] = {symbol: {*recent} for symbol in symbols}
        for symbol, day in self.keys:
            if symbol in found:
                found[symbol].add(day[:7])
        return [(symbol, month) for symbol, months in found.items() for month in sorted(months)]


def groups(names: Iterable[str], instruments: Instruments, sessions: Callable[[str], int]) -> Iterator[list[str]]:
    """Yield the names in groups, the names of a share together. ``sessions`` returns how many a name may have."""
    group: list[str] = []
    weight = 0
    ordered = sorted(names, key=lambda name: (instruments.present(name), name))
    for _, share in groupby(ordered, key=instruments.present):
        found = list(share)
        added = sum(map(sessions, found))
        if group and weight + added > SESSIONS_PER_GROUP:
            yield group
            group, weight = [], 0
        group += found
        weight += added
    if group:
        yield group


def staged_counts(staging: Staging, symbols: Sequence[str], scope: Scope, last: date) -> SessionCounts:
    """Return the bars of the staged sessions of a group. ``last`` is the newest day of the market."""
    counts = SessionCounts()
    if scope.since is None:
        found = staging.counts(symbols)
    else:  # by key: not every server limits a query for several symbols to some days
        recent = sessions_between(scope.since, last) if scope.since <= last else ()
        days = [traded.session_date.isoformat() for traded in recent]
        found = staging.counts_of({*product(symbols, days), *scope.keys})
    for document in found:
        counts.add(document["symbol"], document["session_date"], document["bars"], document["last"])
    return counts


def lake_counts(lake: Lake, symbols: Sequence[str], scope: Scope, last: date) -> SessionCounts:
    """Return the bars of the sessions of a group in the lake. The scope must not be that of every session."""
    counts = SessionCounts()
    for symbol, day, bars, newest in lake.partition_counts(scope.months(symbols, last)):
        if (symbol, day) in scope:
            counts.add(symbol, day, bars, newest)
    return counts


def _months(first: date, last: date) -> Iterator[str]:
    """Yield the months (2025-07) from that of one day to that of another."""
    for number in range(first.year * 12 + first.month - 1, last.year * 12 + last.month):
        yield f"{number // 12}-{number % 12 + 1:02}"


class LakeStream:
    """The bars of every session in the lake, read once in the order of the symbols."""

    def __init__(self, lake: Lake, symbols: Sequence[str]) -> None:
        self._rows = lake.session_counts(symbols)
        self._next: tuple[str, str, int, datetime] | None = next(self._rows, None)

    def take(self, symbols: Sequence[str]) -> SessionCounts:
        """Return the next symbols' sessions. Groups are taken in the order of the symbols."""
        counts, chosen = SessionCounts(), set(symbols)
        while self._next and self._next[0] in chosen:
            counts.add(*self._next)
            self._next = next(self._rows, None)
        return counts
