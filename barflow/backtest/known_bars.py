"""Bars and splits as they were known at a moment, from staging or, where it has no session of a day, from the lake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

from pymongo.database import Database

from barflow.alerts.journal import Row
from barflow.lake.actions import Archived, find_actions
from barflow.lake.partitions import Lake
from barflow.lake.versions import rows_of
from barflow.market.actions import Split
from barflow.market.bars import VALUES
from barflow.market.instruments import Instruments
from barflow.market.sessions import session, sessions_between
from barflow.market.versions import BarVersion, history
from barflow.staging.actions import Actions
from barflow.staging.connection import Document
from barflow.staging.sessions import Staging, known_from_of

# The versions of each bar of a session, oldest first, by slot.
Versions = Mapping[int, list[BarVersion]]


@dataclass(frozen=True)
class KnownBars:
    """The versions of bars and splits that staging and the lake hold."""

    database: Database[Document]
    lake: Lake | None = None
    instruments: Instruments = field(default_factory=Instruments)

    def versions(self, symbol: str, first: date, last: date) -> dict[date, Versions]:
        """Return the versions of a share's bars by session, from ``first`` to ``last``, both included.

        A former symbol has its own bars alone, as when ticks asked for it.
        """
        if symbol != self.instruments.present(symbol):
            return {day: _by_slot(day, versions) for day, versions in self._stored(symbol, first, last).items()}
        found: dict[tuple[str, date], list[BarVersion]] = {}
        for name in self.instruments.stored_names([symbol]):
            found |= {(name, day): versions for day, versions in self._stored(name, first, last).items()}
        chosen = self.instruments.chosen(found)
        return {
            day: _by_slot(day, found[name, day]) for (present, day), name in sorted(chosen.items()) if present == symbol
        }

    def known_at(self, symbol: str, first: date, last: date, moment: datetime) -> dict[date, dict[int, Row]]:
        """Return the bars of a share as they were known at a moment (UTC), by session and slot."""
        return {
            day: rows
            for day, versions in self.versions(symbol, first, last).items()
            if (rows := {slot: row for slot, found in versions.items() if (row := row_at(found, moment))})
        }

    def actions(self, symbol: str) -> Archived:
        """Return all versions of the actions of a share."""
        known = Actions(self.database).of([symbol])[symbol]
        if known.kinds or self.lake is None:
            return Archived(tuple(known.versions), known.kinds)
        return find_actions(self.lake, symbol)

    def _stored(self, name: str, first: date, last: date) -> dict[date, list[BarVersion]]:
        return self._archived(name, first, last) | self._staged(name, first, last)

    def _staged(self, name: str, first: date, last: date) -> dict[date, list[BarVersion]]:
        staging = Staging(self.database)
        documents = list(staging.between(name, first.isoformat(), last.isoformat()))
        earlier = staging.versions.of([document["_id"] for document in documents])
        found = {}
        for document in documents:
            rows = zip(*(document[column] for column in VALUES), strict=True)
            current = [BarVersion.of(row, known) for row, known in zip(rows, known_from_of(document), strict=True)]
            day = date.fromisoformat(document["session_date"])
            found[day] = history([*earlier.get(document["_id"], ()), *current])
        return found

    def _archived(self, name: str, first: date, last: date) -> dict[date, list[BarVersion]]:
        if self.lake is None:
            return {}
        versions: list[BarVersion] = []
        for month in sorted({traded.month for traded in sessions_between(first, last)}):
            for table in (self.lake.read(name, month), self.lake.read_history(name, month)):
                versions += map(_aware, rows_of(table))
        found: dict[date, list[BarVersion]] = {}
        for item in history(versions):
            if first <= item.ts.date() <= last:
                found.setdefault(item.ts.date(), []).append(item)
        return found


def row_at(versions: Iterable[BarVersion], moment: datetime) -> Row | None:
    """Return the version of a bar that was known at a moment (UTC), if one was."""
    known = [item for item in versions if item.known_from <= moment]
    return (known[-1].revision & 255, *known[-1].values) if known else None  # type: ignore[return-value]


def splits_at(actions: Archived, moment: datetime) -> list[Split]:
    """Return the splits that were known at a moment (UTC), oldest ex-date first."""
    return [item.action for item in actions.known_at(moment) if isinstance(item.action, Split)]


def _by_slot(day: date, versions: Iterable[BarVersion]) -> Versions:
    traded = session(day)
    assert traded is not None, "only sessions are stored"
    slots = {ts: slot for slot, ts in enumerate(traded.slots)}
    found: dict[int, list[BarVersion]] = {}
    for item in versions:
        found.setdefault(slots[item.ts], []).append(item)
    return found


def _aware(version: BarVersion) -> BarVersion:
    return replace(version, ts=version.ts.replace(tzinfo=UTC), known_from=version.known_from.replace(tzinfo=UTC))
