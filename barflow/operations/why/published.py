"""What the lake holds of one bar, and which process run published it. No search reads more than a few manifests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from barflow.lake.manifests import Manifest
from barflow.lake.partitions import Lake
from barflow.market.bars import VALUES
from barflow.market.versions import BarVersion
from barflow.operations.why.moment import Slot
from barflow.warehouse.one_bar import LoadRun

# A run that started this long before a version was stored may still have published it.
LONGEST_RUN = timedelta(hours=6)
# How many manifests after a version are searched for its session.
MOST_MANIFESTS = 40


@dataclass(frozen=True)
class LakeBar:
    """A month's file of the lake, the opens (UTC) of its bars, and the bar as it is there, None where it is not."""

    file: str
    opens: list[datetime]
    current: BarVersion | None


@dataclass(frozen=True)
class Run:
    """A process run that published: the run id of its manifest, and its start and end (UTC)."""

    manifest: str
    started_at: datetime
    finished_at: datetime

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Run:
        """Return the run of a document of the ledger."""
        return cls(document["manifest"], document["started_at"], document["finished_at"])

    @classmethod
    def of_load(cls, load: LoadRun) -> list[Run]:
        """Return the runs whose manifests a load consumed. They ended before it did; an id starts with its time."""
        return [cls(run_id, started_at(run_id) or load.finished_at, load.finished_at) for run_id in load.manifests]


def started_at(run_id: str) -> datetime | None:
    """Return the second (UTC) in which a run started, or None for an id without a time."""
    try:
        return datetime.strptime(run_id.split("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


@dataclass(frozen=True)
class Moments:
    """When MongoDB stored a version: not before ``earliest``, and at ``latest`` or before (UTC)."""

    earliest: datetime
    latest: datetime


@dataclass(frozen=True)
class Announced:
    """A manifest that names the bar's session, and the version of the session's document that it published."""

    run: Run
    manifest: Manifest
    session_version: int


def read_lake(lake: Lake, symbol: str, slot: Slot) -> LakeBar | None:
    """Return the bar in the lake, or None where the month has no file. Raise BarflowError for a damaged file."""
    month = slot.session.month
    table = lake.read(symbol, month)
    if table is None:
        return None
    current = _versions(table, slot)
    opens = table["ts"].to_pylist()
    return LakeBar(lake.path(symbol, month), opens, current[0] if current else None)


def read_history(lake: Lake, symbol: str, slot: Slot) -> list[BarVersion]:
    """Return the superseded versions of the bar in the lake. Raise BarflowError for a damaged file."""
    table = lake.read_history(symbol, slot.session.month)
    return [] if table is None else _versions(table, slot)


def _versions(table: pa.Table, slot: Slot) -> list[BarVersion]:
    rows = table.filter(pc.equal(table["ts"], pa.scalar(slot.ts, table["ts"].type))).to_pylist()
    return [BarVersion(*(row[name] for name in (*VALUES, "known_from"))) for row in rows]


# The manifest of a version, and the run id of one that may hold the version too.
OfVersion = tuple[Announced | None, str | None]
NOT_FOUND: OfVersion = (None, None)


class Manifests:
    """The manifests that name one session. ``runs_since`` returns the runs that may have published it, oldest first."""

    def __init__(self, lake: Lake, symbol: str, slot: Slot, runs_since: Callable[[datetime], list[Run]]) -> None:
        self._read: Callable[[str], Manifest] = cache(lake.manifest)
        self._symbol, self._day, self._runs_since = symbol, slot.day.isoformat(), runs_since

    def since(self, moment: datetime) -> Iterator[Announced]:
        """Yield those of runs that ended at a moment (UTC) or later, oldest first."""
        for run in self._runs_since(moment - LONGEST_RUN):
            if run.finished_at >= moment and (found := self.announced(run)):
                yield found

    def announced(self, run: Run) -> Announced | None:
        """Return what a run's manifest says of the session, or None where it does not name it."""
        manifest = self._read(run.manifest)
        for item in manifest.partitions:
            if item.symbol == self._symbol and self._day in item.versions:
                return Announced(run, manifest, item.versions[self._day])
        return None

    def of_version(self, known_from: datetime, stored: Moments) -> OfVersion:
        """Return the first manifest that holds a version, and the run id of one before it that may hold it too."""
        unsure: list[Announced] = []
        for item in self.since(stored.earliest):
            complete = item.manifest.complete_until
            if item.run.started_at >= stored.latest or (complete and complete > known_from):
                return item, unsure[0].run.manifest if unsure else None
            unsure.append(item)
        return (unsure[0] if unsure else None), None

    def of_load(self, load: LoadRun) -> Announced | None:
        """Return the newest manifest of a load that names the session."""
        runs = Run.of_load(load)[-MOST_MANIFESTS:]
        return next((found for run in runs[::-1] if (found := self.announced(run))), None)

    def of_session(self, version: int, updated_at: datetime) -> Announced | None:
        """Return the manifest that published a version of the session's document, stored at a moment (UTC)."""
        return next((item for item in self.since(updated_at) if item.session_version == version), None)
