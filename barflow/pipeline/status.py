"""The status of a symbol: what every hop holds, and whether the guarantees hold.

Per (symbol, session): staged bars = Parquet rows = the sum of bar_count in the warehouse (guarantee G1). Per symbol:
staged versions of corporate actions = rows of their file = rows in the warehouse. What was staged after the last
process run, or published after the last load, is pending, not broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import groupby
from typing import Any, NamedTuple

from barflow.market.bars import BAR_TABLES
from barflow.market.counts import SessionCounts, SessionKey
from barflow.market.instruments import Instruments
from barflow.market.sessions import BAR, Session, last_sessions, new_york, sessions_between
from barflow.market.vendor_days import Comparison, Thresholds


@dataclass
class SymbolStatus:
    """One symbol at every hop. Counts are 5-minute bars unless the name says otherwise."""

    symbol: str
    staged: int = 0
    parquet: int = 0
    warehouse: int = 0
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BAR_TABLES, 0))
    newest_staged: datetime | None = None
    newest_parquet: datetime | None = None
    newest_warehouse: datetime | None = None
    sessions: int = 0
    missing_bars: int = 0
    gaps: list[str] = field(default_factory=list)
    rejected: int = 0
    pending: int = 0
    actions: dict[str, int] = field(default_factory=dict)  # versions of corporate actions, by hop
    broken: list[str] = field(default_factory=list)
    age_minutes: float | None = None
    ended: str | None = None  # why no newer bars are expected under this symbol
    vendor_day: dict[str, Any] | None = None  # the newest session that is compared with Twelve Data's daily bar
    differing: list[str] = field(default_factory=list)  # sessions that differ from it by more than a threshold

    def to_json(self) -> dict[str, Any]:
        """Return the status as one JSON object, with times as ISO text."""
        shown = dict(vars(self))
        for name in ("newest_staged", "newest_parquet", "newest_warehouse"):
            shown[name] = shown[name].isoformat() if shown[name] else None
        return shown


def compare(
    staged: SessionCounts,
    parquet: SessionCounts,
    tables: Mapping[str, SessionCounts],
    *,
    table_rows: Mapping[str, Mapping[str, int]],
    waiting: Set[SessionKey],
    rejected: Mapping[str, int],
    now: datetime,
    instruments: Instruments,
    since: date | None = None,
) -> dict[str, SymbolStatus]:
    """Compare the hops session by session. Gaps are found in the sessions from ``since`` on, or in all. Pure."""
    found: dict[str, SymbolStatus] = {}
    five = tables["bar_5min"]
    for key in sorted({*staged.bars, *parquet.bars, *(key for held in tables.values() for key in held.bars)}):
        symbol, day = key
        status = found.setdefault(symbol, SymbolStatus(symbol))
        # A session may have expired from staging; the archive is then the source.
        source = staged.bars.get(key, parquet.bars.get(key, 0))
        status.staged += staged.bars.get(key, 0)
        status.parquet += parquet.bars.get(key, 0)
        status.warehouse += five.bars.get(key, 0)
        status.sessions += 1
        if key in waiting:
            status.pending += 1
            continue
        counts = {"parquet": parquet.bars.get(key, 0)} | {name: held.bars.get(key, 0) for name, held in tables.items()}
        wrong = ", ".join(f"{name} {count}" for name, count in counts.items() if count != source)
        if wrong:
            status.broken.append(f"{day}: {source} bars staged, {wrong}")
    for symbol, count in rejected.items():
        found.setdefault(symbol, SymbolStatus(symbol)).rejected = count
    for symbol, status in found.items():
        status.rows = {name: table_rows.get(name, {}).get(symbol, 0) for name in tables}
        status.newest_staged = staged.newest.get(symbol)
        status.newest_parquet = parquet.newest.get(symbol)
        status.newest_warehouse = five.newest.get(symbol)
        if status.newest_staged:
            status.age_minutes = round((now - status.newest_staged - BAR).total_seconds() / 60, 1)
        status.ended = instruments.ended(symbol, new_york(now).date())
    held = {(name, date.fromisoformat(day)): bars for (name, day), bars in staged.bars.items()}
    series: dict[str, dict[date, int]] = {}
    for (symbol, at), name in instruments.chosen(held).items():
        series.setdefault(symbol, {})[at] = held[name, at]
    for symbol, days in series.items() if since != date.max else ():
        if instruments.present(symbol) == symbol:  # else another share uses a former symbol: its listing is unknown
            _find_gaps(found, symbol, days, now, instruments, since)
    return found


def compare_actions(found: dict[str, SymbolStatus], hops: Mapping[str, Mapping[str, int]], waiting: Set[str]) -> None:
    """Add the versions of each symbol's corporate actions by hop, and report where the hops differ.

    A symbol without bars is added only if they differ.
    """
    for symbol in sorted({symbol for counts in hops.values() for symbol in counts}):
        versions = {hop: counts.get(symbol, 0) for hop, counts in hops.items()}
        differ = symbol not in waiting and len(set(versions.values())) > 1
        status = found.setdefault(symbol, SymbolStatus(symbol)) if differ else found.get(symbol)
        if status is None:
            continue
        status.actions = versions
        if differ:
            counted = ", ".join(f"{hop} {count}" for hop, count in versions.items())
            status.broken.append(f"versions of corporate actions: {counted}")


def _find_gaps(
    found: Mapping[str, SymbolStatus],
    symbol: str,
    bars: Mapping[date, int],
    now: datetime,
    instruments: Instruments,
    since: date | None,
) -> None:
    """Add the bars of a share that the calendar expects between its first staged session and now, and that are missing.

    They are missing under the symbol of their day, or under the present one if nothing is stored under the former one.
    Sessions without any bar that follow each other are one gap.
    """
    newest = last_sessions(now, 1)
    last = max(newest[-1].session_date if newest else min(bars), *bars)
    first = max(since or date.min, min(bars))
    names = instruments.names(symbol)

    def missing() -> Iterator[_Missing]:
        for traded in sessions_between(first, last):
            day, due = traded.session_date, expected_by(traded, now)
            named = next((name.symbol for name in names if name.first <= day <= name.last), None)
            shown = named if named in found else symbol
            yield _Missing(shown if named and shown in found else None, day, due, due - bars.get(day, 0))

    for _, group in groupby(missing(), key=_Missing.gap):
        gap = [*group]
        if gap[0].symbol is not None and gap[0].bars > 0:
            status, bars_missing = found[gap[0].symbol], sum(item.bars for item in gap)
            status.missing_bars += bars_missing
            status.gaps.append(
                f"{gap[0].day}: {bars_missing} of {gap[0].due} bars missing"
                if len(gap) == 1
                else f"{gap[0].day} to {gap[-1].day}: all {bars_missing} bars of {len(gap)} sessions missing"
            )


class _Missing(NamedTuple):
    """The bars of a session that are due and not stored. Without ``symbol``, the share was not listed then."""

    symbol: str | None
    day: date
    due: int
    bars: int

    def gap(self) -> tuple[str | None, date | None]:
        """Return what is equal for sessions of one gap."""
        return self.symbol, None if 0 < self.due == self.bars else self.day


def expected_by(traded: Session, now: datetime) -> int:
    """Return how many bars of a session have closed by ``now`` (UTC)."""
    return max(0, min(traded.expected_bars, (now - traded.opens) // BAR))


def is_fresh(status: SymbolStatus, now: datetime) -> bool:
    """Return whether the newest bar is at most two ticks older than the newest possible one, or no newer one is due."""
    if status.ended or status.newest_staged is None:
        return status.ended is not None
    due = close_due(now)
    return due is None or status.newest_staged + BAR >= due


def close_due(now: datetime) -> datetime | None:
    """Return the close (UTC) that the newest bar must have reached by ``now``; None before the first session."""
    newest = last_sessions(now, 1)
    return min(now, newest[-1].closes) - 2 * BAR if newest else None


def add_vendor_days(found: Mapping[str, SymbolStatus], compared: Iterable[Comparison], thresholds: Thresholds) -> None:
    """Add to each symbol its newest comparison with a vendor's daily bar, and the sessions over a threshold. Pure."""
    for item in compared:
        status = found.get(item.symbol)
        if status is None:
            continue
        status.vendor_day = {
            "session_date": item.session_date.isoformat(),
            "worst": item.worst,
            "worst_bps": round(item.bps[item.worst], 2),
            "volume_pct": None if item.volume_pct is None else round(item.volume_pct, 2),
        }
        if text := item.differences(thresholds):
            status.differing.append(text)
