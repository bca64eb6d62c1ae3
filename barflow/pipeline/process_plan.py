"""The plan of a process run, in slices: what changed in MongoDB and is not published yet.

A slice holds whole symbols, in alphabetical order, and a bounded number of partitions. It is planned just before the
previous slice is written, so the memory of a run follows a slice and not the whole plan.

Only documents that were updated since shortly before the last successful run are compared with what was published. A
few of them are read in one query. Many, as in a first load, are read by groups of symbols.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from pymongo.database import Database

from barflow.lake.manifests import Manifest
from barflow.lake.partitions import Lake
from barflow.market.vendor_days import VendorDay
from barflow.pipeline.partition_tasks import Key, Sessions
from barflow.staging.actions import Actions, Changed
from barflow.staging.connection import Document
from barflow.staging.ledger import SUCCEEDED, Ledger
from barflow.staging.sessions import Staging
from barflow.staging.vendor_changes import changed_days, changed_symbols

HOP = "process"
# Documents are stamped just before they are written; no write takes nearly this long.
OVERLAP = timedelta(minutes=10)
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# The most partitions of a slice. A month has up to 23 sessions, and the driver holds about 1 KB of each.
PARTITIONS_PER_SLICE = 2_000
# This many daily bars of the vendor count as one partition of a slice.
DAYS_PER_PARTITION = 20
# The most documents of a collection that are read in one query. If there are more, each query reads a group of symbols.
MOST_CANDIDATES = 50_000
SYMBOLS_PER_READ = 10


@dataclass(frozen=True)
class Plan:
    """What a slice publishes: changed sessions by partition, corporate actions by symbol, the vendor's daily bars."""

    partitions: dict[Key, Sessions] = field(default_factory=dict)
    actions: list[Changed] = field(default_factory=list)
    vendor_days: list[VendorDay] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether anything changed."""
        return bool(self.partitions or self.actions or self.vendor_days)

    @property
    def size(self) -> int:
        """Return the size of the plan, in partitions."""
        return max(len(self.partitions), len(self.actions)) + len(self.vendor_days) // DAYS_PER_PARTITION

    @property
    def symbols(self) -> list[str]:
        """Return the symbols for which something is published, sorted."""
        names = chain((symbol for symbol, _ in self.partitions), (item.symbol for item in self.actions))
        return sorted({*names, *(item.symbol for item in self.vendor_days)})

    def add(self, other: Plan) -> None:
        """Add what another plan publishes of other symbols."""
        self.partitions.update(other.partitions)
        self.actions.extend(other.actions)
        self.vendor_days.extend(other.vendor_days)


@dataclass(frozen=True)
class _Found:
    """Documents that may hold something new: sessions, corporate actions, the vendor's daily bars with their stamps."""

    sessions: list[Document]
    actions: list[Changed]
    vendor_days: list[tuple[VendorDay, datetime]]

    @property
    def stamps(self) -> list[datetime]:
        """Return when each document was updated (UTC)."""
        sessions = (item["updated_at"] for item in self.sessions)
        return [*sessions, *(item.updated_at for item in self.actions), *(stamp for _, stamp in self.vendor_days)]

    @property
    def keys(self) -> set[Hashable]:
        """Return how ``_Published`` names each document."""
        sessions = ((item["symbol"], item["session_date"]) for item in self.sessions)
        return {*sessions, *(item.symbol for item in self.actions), *(item for item, _ in self.vendor_days)}

    @property
    def symbols(self) -> set[str]:
        """Return the symbols of the documents."""
        names = {item["symbol"] for item in self.sessions} | {item.symbol for item in self.actions}
        return names | {item.symbol for item, _ in self.vendor_days}


class _Published:
    """What the runs since ``moment`` (UTC) published. Without a moment, no run of all symbols has succeeded yet.

    It keeps the symbols of each manifest in memory, and reads a manifest again for each group of symbols that it names.
    """

    def __init__(self, lake: Lake, runs: Iterable[Document] = (), moment: datetime | None = None) -> None:
        self.moment = moment
        self._runs: list[tuple[datetime, str]] = [(run["finished_at"], run["manifest"]) for run in runs]
        self._symbols: dict[str, frozenset[str]] = {}
        self._read = lru_cache(maxsize=2)(lake.manifest)

    @classmethod
    def since_last(cls, ledger: Ledger, lake: Lake) -> _Published:
        """Return what was published since shortly before the last successful run of all symbols.

        A slice is recorded as a run of its symbols, so those of a run that died count too.
        """
        last = ledger.last(HOP, outcome=SUCCEEDED, lake=lake.uri, symbols=None)
        moment = last["started_at"] - OVERLAP if last else None
        runs = ledger.finished_since(HOP, moment or NEVER, outcome=SUCCEEDED, lake=lake.uri, manifest={"$ne": None})
        return cls(lake, runs, moment)

    def _manifests(self, symbols: set[str], since: datetime) -> Iterator[tuple[datetime, Manifest]]:
        """Yield the manifests that may name one of the symbols, of runs that ended since a moment, and that end."""
        for finished, run_id in self._runs:
            named = self._symbols.get(run_id)
            if finished >= since and (named is None or not named.isdisjoint(symbols)):
                manifest = self._read(run_id)
                self._symbols[run_id] = manifest.symbols
                yield finished, manifest

    def unpublished(self, found: _Found) -> Plan:
        """Return what is not published, with the number of bars of each session as MongoDB counts them.

        A published version is ignored if its run ended before the document's last update: a document that expired and
        was fetched again restarts at version 1, so equal versions can hold different bars.
        """
        keys, done = found.keys, dict[Hashable, tuple[datetime, int]]()
        for finished, manifest in self._manifests(found.symbols, min(found.stamps, default=NEVER)):
            for key, version in _versions(manifest):
                if key in keys:
                    done[key] = max((finished, version), done.get(key, (finished, version)))

        def is_new(key: Hashable, version: int, updated_at: datetime) -> bool:
            finished, published = done.get(key, (NEVER, -1))
            return published != version or finished < updated_at

        partitions: dict[Key, Sessions] = defaultdict(dict)
        for item in found.sessions:
            symbol, day, version = item["symbol"], item["session_date"], item["version"]
            if is_new((symbol, day), version, item["updated_at"]):
                partitions[symbol, day[:7]][day] = (version, item["bars"])
        return Plan(
            dict(partitions),
            [item for item in found.actions if is_new(item.symbol, item.version, item.updated_at)],
            [item for item, updated_at in found.vendor_days if is_new(item, 0, updated_at)],
        )


def _versions(manifest: Manifest) -> Iterator[tuple[Hashable, int]]:
    """Yield the sessions, corporate actions and daily bars of the vendor that a manifest publishes, with versions."""
    for partition in manifest.partitions:
        for day, version in partition.versions.items():
            yield (partition.symbol, day), version
    for file in manifest.actions:
        yield file.symbol, file.version
    for vendor_day in manifest.vendor_days:
        yield vendor_day, 0


def slices(
    database: Database[Document], ledger: Ledger, lake: Lake, symbols: Sequence[str] | None, full: bool
) -> Iterator[Plan]:
    """Yield what to publish of all symbols, or only of ``symbols``, by slices. With ``full``, yield everything."""
    published = _Published(lake) if full else _Published.since_last(ledger, lake)
    plans = map(published.unpublished, _candidates(database, symbols, published.moment))
    yield from _packed(part for plan in plans for part in _by_symbol(plan))


def _candidates(
    database: Database[Document], symbols: Sequence[str] | None, moment: datetime | None
) -> Iterator[_Found]:
    """Yield the documents that were updated after a moment or ever: all at once if they are few, else by symbols."""
    staging, actions = Staging(database), Actions(database)
    if symbols or moment or staging.size() <= MOST_CANDIDATES:  # else everything is a candidate
        few = _Found(
            _most(staging.counts(symbols, stamped_after=moment)),
            _most(actions.changed(symbols, moment)),
            _most(changed_days(database, symbols, moment)),
        )
        if max(len(few.sessions), len(few.actions), len(few.vendor_days)) <= MOST_CANDIDATES:
            yield few
            return
        del few
    names = sorted(changed_symbols(database, symbols, moment))
    for start in range(0, len(names), SYMBOLS_PER_READ):
        group = names[start : start + SYMBOLS_PER_READ]
        # The query uses the index of the symbols. That of the stamps would read every change again for each group.
        found = (item for item in staging.counts(group) if moment is None or item["updated_at"] > moment)
        yield _Found(list(found), list(actions.changed(group, moment)), list(changed_days(database, group, moment)))


def _most(found: Iterable[Any]) -> list[Any]:
    """Return the first documents: one more than a single query may read, if there are so many."""
    return list(islice(found, MOST_CANDIDATES + 1))


def _by_symbol(plan: Plan) -> Iterator[Plan]:
    """Yield the plan of each symbol, in alphabetical order."""
    plans: dict[str, Plan] = defaultdict(Plan)
    for key, sessions in plan.partitions.items():
        plans[key[0]].partitions[key] = sessions
    for item in plan.actions:
        plans[item.symbol].actions.append(item)
    for vendor_day in plan.vendor_days:
        plans[vendor_day.symbol].vendor_days.append(vendor_day)
    for symbol in sorted(plans):
        yield plans[symbol]


def _packed(plans: Iterable[Plan]) -> Iterator[Plan]:
    """Yield the plans of symbols packed into slices."""
    packed = Plan()
    for plan in plans:
        if packed and packed.size + plan.size > PARTITIONS_PER_SLICE:
            yield packed
            packed = Plan()
        packed.add(plan)
    if packed:
        yield packed
