"""Process: publish what changed in MongoDB: (symbol, month) partitions, corporate actions, the vendor's daily bars.

A session has changed if the version of its document differs from the published version. Only documents updated since
shortly before the last successful run are compared. Spark tasks stage whole files. When every count agrees with
MongoDB, each file replaces the old one atomically, and the manifest is written last. If a run dies, the next run does
its work. Corporate actions have one file per symbol, and the manifest itself holds the vendor's daily bars. A run of
only these starts no Spark.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pymongo.database import Database

from barflow.errors import BadInputError, BarflowError
from barflow.lake.actions import promote_actions, stage_actions
from barflow.lake.manifests import ActionsFile, Manifest, Partition
from barflow.lake.partitions import Lake
from barflow.market.vendor_days import VendorDay
from barflow.pipeline.partition_tasks import Key, Sessions, Written, stage_partitions
from barflow.pipeline.program import as_known
from barflow.progress import Log
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.staging.actions import Actions, Changed
from barflow.staging.connection import Document, connect
from barflow.staging.ledger import FAILED, SUCCEEDED, Lease, Ledger, new_run_id
from barflow.staging.sessions import Staging
from barflow.staging.vendor_changes import changed_days
from barflow.text import counted

HOP = "process"
# Documents are stamped just before they are written; no write takes nearly this long.
OVERLAP = timedelta(minutes=10)


@dataclass(frozen=True)
class Plan:
    """What a run publishes: changed sessions by partition, corporate actions by symbol, and the vendor's daily bars.

    Every answer that was asked for before ``complete_until`` (UTC) is published then.
    """

    partitions: dict[Key, Sessions] = field(default_factory=dict)
    actions: list[Changed] = field(default_factory=list)
    vendor_days: list[VendorDay] = field(default_factory=list)
    complete_until: datetime | None = None

    def __bool__(self) -> bool:
        """Return whether anything changed."""
        return bool(self.partitions or self.actions or self.vendor_days)


@dataclass(frozen=True)
class ProcessReport:
    """What a run did: partitions and sessions written, rows of their files, and the manifest's run id if any.

    ``actions`` counts the symbols whose corporate actions were written, ``vendor_days`` the vendor's daily bars.
    """

    run_id: str
    partitions: int
    sessions: int
    rows: int
    actions: int
    vendor_days: int
    manifest: str | None
    outcome: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return asdict(self)


def run(
    settings: Settings, log: Log, *, run_id: str | None = None, symbols: Sequence[str] | None = None, full: bool = False
) -> ProcessReport:
    """Publish what changed of all symbols, or only of ``symbols``. With ``full``, publish everything.

    Raises BadInputError for symbols without staged bars, BusyError while another run holds the lake's lease,
    BarflowError where counts differ from MongoDB's. Nothing is published then.
    """
    database = connect(resolve(settings.mongodb_uri, "BARFLOW_MONGODB_URI"), settings.mongodb_database)
    lake, ledger, staging = Lake(settings.require("lake_uri")), Ledger(database), Staging(database)
    staging.ensure()
    Actions(database).ensure()
    ledger.ensure()
    run_id, chosen = run_id or new_run_id(HOP), sorted(symbols) if symbols else None
    lease = Lease(database, f"{HOP} {lake.uri}", run_id, settings.lease_seconds)
    with lease.held(settings.lease_seconds * 2, log):
        ledger.start(HOP, run_id, lake=lake.uri, symbols=chosen)
        try:
            _check_staged(staging, chosen)
            lake.discard_staged()  # left by runs that died; this one holds the lease
            planned = changed(database, ledger, lake, chosen, full)
            if planned:
                written = _publish(settings, staging, lake, lease, planned, log)
            else:
                log("nothing changed since the last run")
                written = []
        except BaseException as error:
            with suppress(BarflowError):  # MongoDB may be what failed; report that error
                ledger.finish(run_id, FAILED, {}, error=str(as_known(error)))
            raise
        rows: Counter[str] = Counter()
        for item in written:
            rows[item.symbol] += item.rows
        manifest = run_id if planned else None
        ledger.finish(run_id, SUCCEEDED, {symbol: {"rows": n} for symbol, n in rows.items()}, manifest=manifest)
    return ProcessReport(
        run_id,
        partitions=len(written),
        sessions=sum(len(item.sessions) for item in written),
        rows=rows.total(),
        actions=len(planned.actions),
        vendor_days=len(planned.vendor_days),
        manifest=manifest,
        outcome="published" if manifest else "nothing changed",
    )


def _check_staged(staging: Staging, symbols: Sequence[str] | None) -> None:
    unknown = sorted(set(symbols or ()) - staging.newest_sessions(symbols or (), ()).keys())
    if unknown:
        raise BadInputError(
            f"no bars of {', '.join(unknown)} are staged. Nothing was written. "
            f"Check the spelling, or run `barflow ingest --symbols {','.join(unknown)}` first."
        )


def _publish(settings: Settings, staging: Staging, lake: Lake, lease: Lease, planned: Plan, log: Log) -> list[Written]:
    """Stage, verify and move into place what is planned; write the manifest last."""
    written = _stage_bars(settings, lake, lease, planned.partitions, log) if planned.partitions else []
    verify(staging, written, planned.partitions)
    part = f"{lease.holder}/actions"
    actions = [
        ActionsFile(item.symbol, item.version, stage_actions(lake, part, item.symbol, item.versions, item.kinds))
        for item in planned.actions
    ]
    for item, file in zip(planned.actions, actions, strict=True):
        if file.rows != len(item.versions):
            raise BarflowError(
                f"{item.symbol}: MongoDB holds {len(item.versions)} versions of its corporate actions and {file.rows} "
                "were written. Nothing was published; run `barflow process` again."
            )
    lease.check()
    promote(lake, written)
    promote_actions(lake, part, [item.symbol for item in actions])
    lake.discard_staged(lease.holder)
    partitions = published_partitions(written, planned.partitions)
    lake.publish(
        Manifest(
            lease.holder,
            datetime.now(UTC),
            partitions,
            tuple(actions),
            tuple(planned.vendor_days),
            planned.complete_until,
        )
    )
    log(f"published {sum(item.rows for item in written)} rows in {len(written)} partitions")
    if actions:
        log(f"published the corporate actions of {counted(len(actions), 'symbol')}")
    if planned.vendor_days:
        log(f"published Twelve Data's daily bars of {counted(len(planned.vendor_days), 'session')}")
    return written


def _stage_bars(
    settings: Settings, lake: Lake, lease: Lease, planned: Mapping[Key, Sessions], log: Log
) -> list[Written]:
    """Stage the files of the planned partitions in Spark tasks."""
    log(f"{len(planned)} partitions changed; starting Spark")
    from barflow.pipeline.spark import spark_session

    spark = spark_session("barflow process")
    log(f"writing {len(planned)} partitions")
    return stage_partitions(
        spark,
        planned,
        mongodb_uri=resolve(settings.mongodb_uri, "BARFLOW_MONGODB_URI"),
        database=settings.mongodb_database,
        lake_uri=lake.uri,
        run_id=lease.holder,
    )


@dataclass
class _Published:
    """When each version was published by the runs since ``moment``. Without a moment, everything is published again."""

    moment: datetime | None = None
    sessions: dict[tuple[str, str], tuple[datetime, int]] = field(default_factory=dict)
    actions: dict[str, tuple[datetime, int]] = field(default_factory=dict)
    vendor_days: dict[VendorDay, datetime] = field(default_factory=dict)


def _published(ledger: Ledger, lake: Lake) -> _Published:
    """Return what was published since shortly before the last successful run of all symbols."""
    last = ledger.last(HOP, outcome=SUCCEEDED, lake=lake.uri, symbols=None)
    if last is None:
        return _Published()
    found = _Published(last["started_at"] - OVERLAP)
    for run in ledger.finished_since(
        HOP, last["started_at"] - OVERLAP, outcome=SUCCEEDED, lake=lake.uri, manifest={"$ne": None}
    ):
        finished, manifest = run["finished_at"], lake.manifest(run["manifest"])
        for partition in manifest.partitions:
            for day, version in partition.versions.items():
                key = partition.symbol, day
                found.sessions[key] = max((finished, version), found.sessions.get(key, (finished, version)))
        for file in manifest.actions:
            done = (finished, file.version)
            found.actions[file.symbol] = max(done, found.actions.get(file.symbol, done))
        for vendor_day in manifest.vendor_days:
            found.vendor_days[vendor_day] = max(finished, found.vendor_days.get(vendor_day, finished))
    return found


def changed(database: Database[Document], ledger: Ledger, lake: Lake, symbols: list[str] | None, full: bool) -> Plan:
    """Return what to publish, with the number of bars of each session as MongoDB counts them.

    A published version is ignored if its run ended before the document's last update: a document that expired and was
    fetched again restarts at version 1, so equal versions can hold different bars.
    """
    # A running tick may still store what it asked for. Of other symbols, this run publishes nothing.
    complete_until = lake.complete_until() if symbols else ledger.all_stored_until()
    published = _Published() if full else _published(ledger, lake)
    moment = published.moment
    partitions: dict[Key, Sessions] = defaultdict(dict)
    for document in Staging(database).counts(symbols, stamped_after=moment):
        symbol, day = document["symbol"], document["session_date"]
        until, version = published.sessions.get((symbol, day), (document["updated_at"], 0))
        if version != document["version"] or until < document["updated_at"]:
            partitions[symbol, day[:7]][day] = (document["version"], document["bars"])
    actions = [
        item
        for item in Actions(database).changed(symbols, moment)
        if (done := published.actions.get(item.symbol)) is None or done[1] != item.version or done[0] < item.updated_at
    ]
    vendor_days = [
        item
        for item, updated_at in changed_days(database, symbols, moment)
        if (finished := published.vendor_days.get(item)) is None or finished < updated_at
    ]
    return Plan(dict(partitions), actions, vendor_days, complete_until)


def verify(staging: Staging, written: Iterable[Written], planned: Mapping[Key, Sessions]) -> None:
    """Compare what was written with MongoDB's own counts. Raise BarflowError if they differ.

    A session that ingest changed since the plan is counted again. If it changes once more, its version is newer than
    the published one, so the next run takes it.
    """
    done = {(item.symbol, day): counts for item in written for day, counts in item.sessions.items()}
    counted = {(symbol, day): counts for (symbol, _), days in planned.items() for day, counts in days.items()}
    again = sorted(key for key, counts in done.items() if counted.get(key, (0, 0))[0] != counts[0])
    if again:
        since = date.fromisoformat(min(day for _, day in again))
        for document in staging.counts(sorted({symbol for symbol, _ in again}), since):
            counted[document["symbol"], document["session_date"]] = (document["version"], document["bars"])
    for key in sorted({*done, *counted}):
        version, bars = done.get(key, (0, 0))
        if version == 0 and key not in done and (key[0], key[1][:7]) not in planned:
            continue  # counted again for its symbol only
        if version == 0 or (counted[key][0] == version and counted[key][1] != bars):
            raise BarflowError(
                f"{' '.join(key)}: MongoDB counts {counted[key][1]} bars and {bars} were written. "
                "Nothing was published; run `barflow process` again."
            )


def promote(lake: Lake, written: Sequence[Written]) -> None:
    """Move every written file into place.

    The history comes first: who reads the bars and then the history misses no version, but may find one in both.
    """
    by_part: dict[str, list[Key]] = defaultdict(list)
    histories: dict[str, list[Key]] = defaultdict(list)
    for item in written:
        by_part[item.part].append((item.symbol, item.month))
        if item.is_history_new:
            histories[item.part].append((item.symbol, item.month))
    for part, keys in by_part.items():
        lake.promote(part, keys, histories.get(part, ()))


def published_partitions(written: Iterable[Written], planned: Mapping[Key, Sessions]) -> tuple[Partition, ...]:
    """Return for the manifest, per partition, the sessions that changed and the version that was written."""
    return tuple(
        Partition(
            item.symbol,
            item.month,
            item.rows,
            {day: item.sessions[day][0] for day in sorted(planned[item.symbol, item.month]) if day in item.sessions},
            item.history,
        )
        for item in sorted(written, key=lambda item: (item.symbol, item.month))
    )
