"""Collect what every store knows of one bar. A store that does not answer is named, and the rest is still shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import psycopg
from pymongo.database import Database

from barflow.alerts.outbox import EXPIRES_AFTER
from barflow.errors import BadInputError, UnavailableError
from barflow.lake.partitions import Lake
from barflow.market.instruments import Instruments
from barflow.market.sessions import new_york, utc_now
from barflow.market.versions import BarVersion, history
from barflow.operations.why import published, staged
from barflow.operations.why.compare import VALUES, Reached, gaps, stored, values_of
from barflow.operations.why.links import Links
from barflow.operations.why.moment import Slot, parse_time, slot_at
from barflow.operations.why.published import Announced, LakeBar, Manifests, Run
from barflow.operations.why.staged import StagedSession
from barflow.operations.why.story import (
    BarAction,
    BarAnswer,
    Fired,
    Published,
    RejectedRow,
    Validation,
    Values,
    Version,
    Why,
)
from barflow.staging.connection import Document
from barflow.staging.ledger import Ledger
from barflow.staging.raw_answers import ANSWERS_KEPT
from barflow.symbol import check_symbol
from barflow.warehouse import one_bar
from barflow.warehouse.one_bar import LoadRun

HOP = "process"
MONGODB, LAKE, WAREHOUSE = "MongoDB", "The lake", "The warehouse"
# The clocks of hosts may differ by so much.
SKEW = timedelta(minutes=10)
MINUTES = {"bar_5min": 5, "bar_30min": 30, "bar_1h": 60}
Read = TypeVar("Read")


class NoSuchBarError(BadInputError):
    """No store holds the bar."""


@dataclass(frozen=True)
class Sources:
    """The stores. Each is opened when it is first needed. ``lake`` returns None where this process has no lake.

    ``clock`` returns the market's time (UTC).
    """

    database: Callable[[], Database[Document]]
    lake: Callable[[], Lake | None]
    warehouse: Callable[[], AbstractContextManager[psycopg.Connection[Any]]]
    instruments: Instruments
    clock: Callable[[], datetime] = utc_now


def why(sources: Sources, symbol: str, time: str) -> Why:
    """Return everything about the bar of a share that contains a time: New York time, or ISO text with an offset.

    ``symbol`` is a present or a former symbol. Raises BadInputError for a time without a bar, with the bars next to it;
    UnavailableError where no store that answers holds the bar, and one does not answer.
    """
    slot = slot_at(parse_time(time))
    return _Bar(sources, check_symbol(symbol), slot).collect()


@dataclass
class _Found:
    """What the stores hold of the bar under one name."""

    symbol: str
    session: StagedSession | None = None
    lake: LakeBar | None = None
    archived_before: list[BarVersion] = field(default_factory=list)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def staged(self) -> BarVersion | None:
        """Return the staged bar."""
        return self.session.current if self.session else None

    @property
    def archived(self) -> BarVersion | None:
        """Return the bar in the lake."""
        return self.lake.current if self.lake else None

    @property
    def row(self) -> dict[str, Any] | None:
        """Return the bar's row in the warehouse."""
        return self.rows.get("bar_5min")

    def versions(self) -> list[BarVersion]:
        """Return every version in MongoDB and the lake, oldest first."""
        superseded = self.session.superseded if self.session else []
        return history([*superseded, *self.archived_before, *filter(None, (self.staged, self.archived))])


class _Bar:
    """One bar of a share, and the reads that collect its links."""

    def __init__(self, sources: Sources, symbol: str, slot: Slot) -> None:
        self.sources, self.slot, self.links = sources, slot, Links()
        self._opened: Manifests | None = None
        self.present = sources.instruments.present(symbol)
        names = sources.instruments.stored_names([self.present])
        self.names = [name for name in names if sources.instruments.present_on(name, slot.day) == self.present]
        self.lake = self.links.read(LAKE, "the file", sources.lake, None)
        if self.lake is None and LAKE not in self.links.down:
            self.links.missing.append("This process has no access to the lake, so file and manifest are not shown.")

    def collect(self) -> Why:
        """Return everything about the bar."""
        found = self._stored()
        versions = found.versions()
        rejected = self._rejected()
        answers = [item for version in versions if (item := self._answer(found.symbol, version, rejected))]
        shown = self._published(found, versions, {item.revision: item.run_id for item in answers})
        newest = self._session_published(found, shown)
        load = self._load(found.row["load_id"]) if found.row else None
        row = Values(**{name: found.row[name] for name in VALUES}) if found.row else None
        stores = stored(values_of(found.staged), values_of(found.archived), row)
        self.links.missing += gaps(stores, self._reached(found, shown), found.symbol)
        aggregates = {name: item for name, item in found.rows.items() if name not in ("bar_5min", one_bar.METRICS)}
        return Why(
            symbol=found.symbol,
            present_symbol=self.present,
            bar_start=self.slot.ts,
            session_date=self.slot.day,
            versions=shown,
            answers=answers,
            validation=Validation(accepted=len(versions), rejected=rejected),
            file=found.lake.file if found.lake and found.archived else None,
            manifest=newest.manifest,
            published_at=newest.published_at,
            load_id=found.row["load_id"] if found.row else None,
            loaded_at=load.finished_at if load else None,
            stored=stores,
            aggregates=aggregates,
            daily_metrics=found.rows.get(one_bar.METRICS),
            actions=self._actions(),
            alerts=self._alerts(versions),
            missing=self.links.missing,
        )

    def _mongo(self, what: str, read: Callable[[Database[Document]], Read], otherwise: Read) -> Read:
        return self.links.read(MONGODB, what, lambda: read(self.sources.database()), otherwise)

    def _warehouse(self, what: str, read: Callable[[psycopg.Connection[Any]], Read], otherwise: Read) -> Read:
        def answer() -> Read:
            with self.sources.warehouse() as connection:
                return read(connection)

        return self.links.read(WAREHOUSE, what, answer, otherwise)

    def _stored(self) -> _Found:
        """Return what the stores hold under the newest name that has the bar. Raise NoSuchBarError where none does."""
        tried = []
        for name in self.names:
            found = self._read(name)
            if found.staged or found.archived or found.row:
                return found
            tried.append(found)
        where = f"bar of {self.present} at {self.slot.label}"
        if self.links.down:
            raise UnavailableError(f"No store that answers holds the {where}. {' '.join(self.links.missing)}")
        raise NoSuchBarError(f"There is no {where}. {self._next_to(tried)}")

    def _read(self, name: str) -> _Found:
        slot, lake = self.slot, self.lake
        starts = {table: slot.session.bucket_start(slot.ts, minutes) for table, minutes in MINUTES.items()}
        starts["bar_1d"] = slot.session.opens
        found = _Found(name)
        found.session = self._mongo("the session", lambda db: staged.read_session(db, name, slot), None)
        if lake is not None:
            found.lake = self.links.read(LAKE, "the file", lambda: published.read_lake(lake, name, slot), None)
            found.archived_before = self.links.read(
                LAKE, "the earlier versions", lambda: published.read_history(lake, name, slot), []
            )
        found.rows = self._warehouse("rows", lambda db: one_bar.rows_of_bar(db, name, starts, slot.day), found.rows)
        return found

    def _next_to(self, tried: Sequence[_Found]) -> str:
        """Return sentences with the stored bars before and after the slot, and a rejected row of it."""
        opens: set[datetime] = set()
        for found in tried:
            opens.update(found.lake.opens if found.lake else ())
            opens.update(self._opens_in_mongodb(found.symbol), self._opens_in_warehouse(found.symbol))
        before, after = (ts for ts in opens if ts < self.slot.ts), (ts for ts in opens if ts > self.slot.ts)
        nearest = [ts for ts in (max(before, default=None), min(after, default=None)) if ts]
        if not nearest:
            return "No store holds any bar of it: check the spelling, or fetch its bars with `barflow backfill`."
        shown = " and ".join(f"{new_york(ts):%Y-%m-%d %H:%M}" for ts in nearest)
        text = f"The stored bars next to it open at {shown} New York."
        if rejected := self._rejected():
            text += f" Validation rejected it: `barflow rejected show {rejected[0].id[:8]}` shows why."
        return text

    def _opens_in_mongodb(self, name: str) -> Sequence[datetime]:
        return self._mongo("the bars next to it", lambda db: staged.opens_next_to(db, name, self.slot), [])

    def _opens_in_warehouse(self, name: str) -> Sequence[datetime]:
        return self._warehouse("the bars next to it", lambda db: one_bar.opens_next_to(db, name, self.slot.ts), [])

    def _rejected(self) -> list[RejectedRow]:
        return self._mongo("the rejected rows", lambda db: staged.rejected_rows(db, self.names, self.slot), [])

    def _answer(self, name: str, version: BarVersion, rejected: Sequence[RejectedRow]) -> BarAnswer | None:
        """Return the answer that brought a version. Without one, name it as missing."""
        what = f"the answer of version {version.revision}"
        found: list[BarAnswer | None] = self._mongo(
            what, lambda db: [staged.answer_of(db, name, self.slot, version, rejected)], []
        )
        if found == [None]:
            expired = version.known_from < utc_now() - ANSWERS_KEPT
            self.links.missing.append(
                f"The answer of version {version.revision}, known from {version.known_from:%Y-%m-%d %H:%M:%S} UTC, "
                + (
                    f"has expired: answers are kept for {ANSWERS_KEPT.days} days."
                    if expired
                    else "is not stored: an earlier release or another program stored the bar."
                )
            )
        return found[0] if found else None

    def _published(
        self, found: _Found, versions: Sequence[BarVersion], ingest_runs: Mapping[int, str]
    ) -> list[Version]:
        """Return the versions, each with the first manifest and load that held it."""
        shown = []
        for place, version in enumerate(versions):
            before = versions[place - 1] if place else None
            moments = self._stored_between(found.session, before, version, ingest_runs.get(place))
            announced = self._first_manifest(found.symbol, version, moments)
            fields = {name: getattr(version, name) for name in (*VALUES, "revision", "known_from", "known_until")}
            shown.append(Version(**fields, **self._of(announced).model_dump()))
        return shown

    def _first_manifest(self, name: str, version: BarVersion, moments: published.Moments) -> Announced | None:
        manifests = self._manifests(name)
        if manifests is None:
            return None
        announced, unsure = self.links.read(
            LAKE,
            f"the manifest of version {version.revision}",
            lambda: manifests.of_version(version.known_from, moments),
            published.NOT_FOUND,
        )
        if announced and unsure:
            self.links.missing.append(
                f"Process run {unsure} worked while version {version.revision} was stored, and may have published it "
                f"before {announced.run.manifest}."
            )
        return announced

    def _stored_between(
        self, session: StagedSession | None, before: BarVersion | None, version: BarVersion, ingest_run: str | None
    ) -> published.Moments:
        """Return when MongoDB stored a version: when the one before was replaced, or before its run of ingest ended."""
        run = self._mongo("the run of ingest", lambda db: Ledger(db).get(ingest_run), None) if ingest_run else None
        earliest, ended = version.known_from, (run or {}).get("finished_at")
        replaced = session.replaced_at.get(before.known_from) if session and before else None
        # An answer that came late was placed before this version after this one was stored.
        if replaced and earliest < replaced <= (ended or replaced):
            return published.Moments(replaced, replaced)
        return published.Moments(earliest, ended or earliest)

    def _session_published(self, found: _Found, shown: Sequence[Version]) -> Published:
        """Return what published the session last: its staged version, else that of the warehouse's row."""
        manifests, session = self._manifests(found.symbol), found.session
        announced: Announced | None = None
        if manifests and session:
            announced = self.links.read(
                LAKE, "the manifest", lambda: manifests.of_session(session.version, session.updated_at), None
            )
        elif manifests and found.row and (load := self._load(found.row["load_id"])):
            announced = self.links.read(LAKE, "the manifest", lambda: manifests.of_load(load), None)
        return self._of(announced) if announced else next((item for item in shown[::-1] if item.manifest), Published())

    def _manifests(self, name: str) -> Manifests | None:
        lake = self.lake
        if lake is None or LAKE in self.links.down:
            return None
        if self._opened is None:  # the same for every version, so that each manifest is read once
            self._opened = Manifests(lake, name, self.slot, lambda since: self._runs(lake, name, since))
        return self._opened

    def _runs(self, lake: Lake, name: str, since: datetime) -> list[Run]:
        """Return the process runs since a moment (UTC) that may name a session of a symbol.

        They come from MongoDB's ledger. Where it does not answer or has expired, the warehouse's loads name the
        manifests.
        """
        limit = published.MOST_MANIFESTS
        documents: list[Document] = self._mongo(
            "the ledger", lambda db: Ledger(db).published(HOP, lake.uri, name, since, limit), []
        )
        if MONGODB not in self.links.down:
            runs = [Run.of(item) for item in documents]
            return [*self._before_ledger(lake, since, limit, {run.manifest for run in runs}), *runs][:limit]
        return self._loaded(since, limit)

    def _before_ledger(self, lake: Lake, since: datetime, limit: int, known: Set[str]) -> list[Run]:
        """Return the runs since a moment (UTC) that the ledger no longer has: those before its first run."""
        first: datetime | None = self._mongo("the ledger", lambda db: Ledger(db).first(HOP, lake.uri), None)
        if first and since >= first:
            return []
        return [
            run
            for run in self._loaded(since, limit)
            if run.manifest not in known and (first is None or run.started_at < first)
        ]

    def _loaded(self, since: datetime, limit: int) -> list[Run]:
        loads: list[LoadRun] = self._warehouse("loads", lambda db: one_bar.loads_since(db, since, limit), [])
        return [run for load in loads for run in Run.of_load(load)][:limit]

    def _of(self, announced: Announced | None) -> Published:
        """Return a manifest with the load that consumed it."""
        if announced is None:
            return Published()
        run_id, created_at = announced.manifest.run_id, announced.manifest.created_at
        load: LoadRun | None = self._warehouse(
            "the load", lambda db: one_bar.first_load_of(db, run_id, created_at - SKEW), None
        )
        return Published(
            manifest=run_id,
            published_at=created_at,
            load_id=load.load_id if load else None,
            loaded_at=load.finished_at if load else None,
        )

    def _load(self, load_id: str) -> LoadRun | None:
        return self._warehouse("the load", lambda db: one_bar.load_run(db, load_id), None)

    def _reached(self, found: _Found, shown: Sequence[Version]) -> Reached:
        down, newest = self.links.down, shown[-1] if shown else None
        return Reached(
            staging=MONGODB not in down,
            lake=self.lake is not None and LAKE not in down,
            warehouse=WAREHOUSE not in down,
            published=bool(newest and newest.manifest),
            loaded=bool(newest and newest.load_id),
        )

    def _actions(self) -> list[BarAction]:
        """Return the actions that adjust the bar. Name kinds that were never fetched."""
        known = self._mongo("splits and dividends", lambda db: staged.known_actions(db, self.present), None)
        if known is None:
            return []
        if never := [f"{kind}s" for kind in ("split", "dividend") if not known.has(kind)]:
            self.links.missing.append(
                f"The {' and '.join(never)} of {self.present} were never fetched: `barflow actions refresh --symbols "
                f"{self.present}` does."
            )
        return staged.adjusting(known, self.slot, new_york(self.sources.clock()).date())

    def _alerts(self, versions: Sequence[BarVersion]) -> list[Fired]:
        """Return the alerts of the bar. Name that they may have expired."""
        found: list[Fired] = self._mongo("alerts", lambda db: staged.alerts_of(db, self.names, self.slot), [])
        first = versions[0].known_from if versions else self.slot.ts
        if not found and MONGODB not in self.links.down and first < utc_now() - EXPIRES_AFTER:
            self.links.missing.append(f"Alerts are kept for {EXPIRES_AFTER.days} days: those of this bar have expired.")
        return found
