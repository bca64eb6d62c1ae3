"""What a recording holds, read from its file by plain Python: an oracle that shares no code with Barflow."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from recordings.market import OPENS, closes

NEW_YORK = ZoneInfo("America/New_York")


@cache
def rows_by_symbol(watch_list: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of the file by symbol as it has them: text, newest first."""
    found: dict[str, list[dict[str, str]]] = {}
    with watch_list.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["symbol"], []).append(row)
    return found


def in_session(row: dict[str, str]) -> bool:
    """Return whether the exchange was open when the bar of this row opened."""
    clock = wall_clock(row)
    return OPENS <= clock.time() < closes(clock.date())


def wall_clock(row: dict[str, str]) -> datetime:
    """Return the open of a row's bar on New York's wall clock, without a time zone."""
    return datetime.fromisoformat(row["datetime"])


def as_utc(clock: datetime) -> datetime:
    """Return a moment of New York's wall clock in UTC."""
    return clock.replace(tzinfo=NEW_YORK).astimezone(UTC)


def overnight_gaps(watch_list: Path, percent: float = 5) -> dict[tuple[str, date], float]:
    """Return by symbol and session how far its open is from the close before, in percent, where it is that far."""
    found = {}
    for symbol, rows in rows_by_symbol(watch_list).items():
        for before, row in pairwise(filter(in_session, reversed(rows))):
            day = wall_clock(row).date()
            gap = (float(row["open"]) / float(before["close"]) - 1) * 100
            if wall_clock(before).date() != day and abs(gap) > percent:
                found[symbol, day] = gap
    return found
