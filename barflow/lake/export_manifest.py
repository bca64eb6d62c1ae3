"""The manifest of an export: what its files hold, as of when, and what is missing. A study cites an export by it.

Two exports of the same data as of the same moment have the same manifest: it holds no time at which an export ran, and
no name of a file or folder that the user chose.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any

from barflow import __version__
from barflow.market.actions import Action, Split
from barflow.market.instruments import Instruments
from barflow.market.sessions import BAR, sessions_between

FORMAT = 1


@dataclass(frozen=True)
class Written:
    """A file of an export: its path in the export's folder (empty in an export to one file), bytes and SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Gaps:
    """What is missing of one symbol.

    Args:
        without_bars: The listed sessions that have no bar.
        incomplete: The sessions that have some of their bars: the date, the bars, and the bars that were due.
    """

    without_bars: tuple[date, ...] = ()
    incomplete: tuple[tuple[date, int, int], ...] = ()


@dataclass(frozen=True)
class Holding:
    """What an export holds of one symbol: its rows, the bars of each session, the actions applied, and the gaps."""

    symbol: str
    rows: int = 0
    bars: Mapping[date, int] = field(default_factory=dict)
    actions: Sequence[Action] = ()
    gaps: Gaps = Gaps()

    def to_json(self) -> dict[str, Any]:
        """Return the holding as an object of the manifest."""
        return {
            "symbol": self.symbol,
            "rows": self.rows,
            "sessions": len(self.bars),
            "first_session": min(self.bars, default=None),
            "last_session": max(self.bars, default=None),
            "actions": [
                {
                    "kind": item.kind,
                    "ex_date": item.ex_date,
                    "ratio" if isinstance(item, Split) else "amount": item.value,
                    "source": item.source,
                    "known_from": moment_text(item.known_from),
                }
                for item in self.actions
            ],
            "sessions_without_bars": [*_ranges(self.gaps.without_bars)],
            "incomplete_sessions": [
                {"session_date": day, "bars": bars, "due": due} for day, bars, due in self.gaps.incomplete
            ],
        }


def find_gaps(
    instruments: Instruments, symbol: str, first: date, last: date, bars: Mapping[date, int], as_of: datetime
) -> Gaps:
    """Return what was missing of a symbol at a moment, given its number of bars by session.

    A bar is due when it has closed by ``as_of`` (UTC). A session counts only while the share is listed.
    """
    without, incomplete = [], []
    for traded in sessions_between(first, last):
        day = traded.session_date
        due = min(traded.expected_bars, max(0, (as_of - traded.opens) // BAR))
        if not instruments.is_listed(symbol, day) or bars.get(day, 0) >= due:
            continue
        if day in bars:
            incomplete.append((day, bars[day], due))
        else:
            without.append(day)
    return Gaps(tuple(without), tuple(incomplete))


def manifest_of(question: Mapping[str, Any], holdings: Sequence[Holding], files: Iterable[Written]) -> dict[str, Any]:
    """Return the manifest of an export as a JSON object. ``question`` states what was asked for."""
    days = {day for item in holdings for day in item.bars}
    return {
        "format": FORMAT,
        "barflow": __version__,
        **question,
        "rows": sum(item.rows for item in holdings),
        "sessions": len(days),
        "symbols": [item.to_json() for item in holdings],
        "files": [
            {**({"path": item.path} if item.path else {}), "bytes": item.size, "sha256": item.sha256} for item in files
        ],
    }


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """Return the text of a manifest's file."""
    return json.dumps(manifest, indent=1, default=str) + "\n"


def moment_text(moment: datetime) -> str:
    """Return a moment in UTC as ISO text with a Z, with as many digits as it has: one text for each moment."""
    digits = "seconds" if not moment.microsecond else "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.astimezone(UTC).isoformat(timespec=digits).replace("+00:00", "Z")


def _ranges(days: Sequence[date]) -> Iterable[dict[str, Any]]:
    """Yield each run of consecutive sessions once: its first and last day, and how many sessions it has."""
    if not days:
        return
    place = {traded.session_date: n for n, traded in enumerate(sessions_between(days[0], days[-1]))}
    for _, run in groupby(enumerate(days), lambda item: place[item[1]] - item[0]):
        found = [day for _, day in run]
        yield {"first": found[0], "last": found[-1], "sessions": len(found)}
