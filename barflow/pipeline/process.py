"""Process: publish what changed in MongoDB: (symbol, month) partitions, corporate actions, the vendor's daily bars.

A session has changed if the version of its document differs from the published version. A run works in slices of whole
symbols: Spark tasks stage the files of a slice, and when every count agrees with MongoDB, each file replaces the old
one atomically. The manifest of the slice is written last. If a run dies, its manifests stay, and the next run publishes
the rest. Corporate actions have one file per symbol, and the manifest itself holds the vendor's daily bars. A slice of
only these starts no Spark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

from barflow.errors import BadInputError, BarflowError
from barflow.lake.actions import promote_actions, stage_actions
from barflow.lake.manifests import ActionsFile, Manifest, Partition, manifest_id
from barflow.lake.partitions import Lake
from barflow.market.sessions import utc_now
from barflow.pipeline import partition_tasks
from barflow.pipeline.partition_tasks import Key, Sessions, Written, stage_partitions
from barflow.pipeline.process_plan import HOP, Plan, slices
from barflow.pipeline.program import as_known
from barflow.progress import Log
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.staging.actions import Actions, Changed
from barflow.staging.connection import connect
from barflow.staging.ledger import FAILED, SUCCEEDED, Lease, Ledger, new_run_id
from barflow.staging.sessions import Staging
from barflow.text import counted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A plan of a few sessions takes less. So a run that finds nothing new starts no Spark.
PLAN_SECONDS = 0.3


@dataclass(frozen=True)
class ProcessReport:
    """What a run did: partitions and sessions written, rows of their files, and the ids of its manifests.

    ``actions`` counts the symbols whose corporate actions were written, ``vendor_days`` the vendor's daily bars.
    ``manifests`` has one id per slice, in order; ``manifest`` is the last one, None if nothing changed.
    """

    run_id: str
    partitions: int
    sessions: int
    rows: int
    actions: int
    vendor_days: int
    manifest: str | None
    manifests: tuple[str, ...]
    outcome: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return asdict(self)


@dataclass
class _Run:
    """A run that holds the lake's lease, and what it has published so far."""

    settings: Settings
    staging: Staging
    lake: Lake
    lease: Lease
    log: Log
    started_at: datetime
    totals: Counter[str] = field(default_factory=Counter)
    manifests: list[str] = field(default_factory=list)
    has_spark: bool = False

    def spark(self, known: str) -> SparkSession:
        """Return the Spark session, which starts at the first call. ``known`` is for the log: what changed."""
        from barflow.pipeline.spark import spark_session

        if not self.has_spark:
            self.log(f"{known}; starting Spark")
            self.has_spark = True
        return spark_session("barflow process", partition_tasks.__name__)

    def report(self) -> ProcessReport:
        """Return what the run published."""
        return ProcessReport(
            self.lease.holder,
            **{name: self.totals[name] for name in ("partitions", "sessions", "rows", "actions", "vendor_days")},
            manifest=self.manifests[-1] if self.manifests else None,
            manifests=tuple(self.manifests),
            outcome="published" if self.manifests else "nothing changed",
        )


def run(
    settings: Settings, log: Log, *, run_id: str | None = None, symbols: Sequence[str] | None = None, full: bool = False
) -> ProcessReport:
    """Publish what changed of all symbols, or only of ``symbols``. With ``full``, publish everything.

    Raises BadInputError for symbols without staged bars, BusyError while another run holds the lake's lease,
    BarflowError where counts differ from MongoDB's. Nothing of that slice is published then, and the slices before it
    stay published.
    """
    database = connect(resolve(settings.mongodb_uri, "BARFLOW_MONGODB_URI"), settings.mongodb_database)
    lake, ledger, staging = Lake(settings.require("lake_uri")), Ledger(database), Staging(database)
    staging.ensure()
    Actions(database).ensure()
    ledger.ensure()
    run_id, chosen = run_id or new_run_id(HOP), sorted(symbols) if symbols else None
    lease = Lease(database, f"{HOP} {lake.uri}", run_id, settings.lease_seconds)
    with lease.held(settings.lease_seconds * 2, log):
        working = _Run(settings, staging, lake, lease, log, utc_now())
        ledger.start(HOP, run_id, lake=lake.uri, symbols=chosen)
        try:
            _check_staged(staging, chosen)
            lake.discard_staged()  # left by runs that died; this one holds the lease
            # A running tick may still store what it asked for. Of other symbols, this run publishes nothing.
            complete_until = lake.complete_until() if chosen else ledger.all_stored_until()
            counts = _publish_slices(working, ledger, slices(database, ledger, lake, chosen, full), complete_until)
        except BaseException as error:
            with suppress(BarflowError):  # MongoDB may be what failed; report that error
                ledger.finish(run_id, FAILED, {}, error=str(as_known(error)))
            raise
        report = working.report()
        ledger.finish(run_id, SUCCEEDED, counts, manifest=report.manifest)
    return report


def _check_staged(staging: Staging, symbols: Sequence[str] | None) -> None:
    unknown = sorted(set(symbols or ()) - staging.newest_sessions(symbols or (), ()).keys())
    if unknown:
        raise BadInputError(
            f"no bars of {', '.join(unknown)} are staged. Nothing was written. "
            f"Check the spelling, or run `barflow ingest --symbols {','.join(unknown)}` first."
        )


def _publish_slices(
    working: _Run, ledger: Ledger, planned: Iterator[Plan], complete_until: datetime | None
) -> dict[str, dict[str, int]]:
    """Publish the slices one after the other. Return the rows by symbol of the last one.

    Each slice but the last is recorded as a run of its symbols, so if this run dies, the next one skips what it
    published. Until the last slice, ``complete_until`` stays as it was before the run.
    """
    run_id, rows = working.lease.holder, Counter[str]()
    until_now = None
    following = first_slice(planned, lambda: working.spark("many sessions changed"))
    if following is None:
        working.log("nothing changed since the last run")
    for number in count(1):
        if (current := following) is None:
            break
        following = next(planned, None)
        is_only = number == 1 and following is None
        if number == 1 and following:
            until_now = working.lake.complete_until()
        name = run_id if is_only else manifest_id(run_id, number)
        rows = _publish(working, name, current, until_now if following else complete_until)
        if following:
            # Before the run itself, so that the newest run stays that one.
            started_at = working.started_at - timedelta(milliseconds=1)
            fields = {"lake": working.lake.uri, "symbols": current.symbols, "manifest": name}
            ledger.record_part(HOP, name, started_at, _counts(rows), **fields)
    return _counts(rows)


def first_slice(planned: Iterator[Plan], start_spark: Callable[[], object]) -> Plan | None:
    """Return the first slice, or None without one. If its plan takes long, Spark starts meanwhile.

    Such a plan reads many sessions, so there will be something to write. Raises what the plan raises.
    """
    with ThreadPoolExecutor(1) as thread:
        plan = thread.submit(next, planned, None)
        try:
            return plan.result(timeout=PLAN_SECONDS)
        except TimeoutError:
            start_spark()
        return plan.result()


def _counts(rows: Mapping[str, int]) -> dict[str, dict[str, int]]:
    return {symbol: {"rows": number} for symbol, number in rows.items()}


def _publish(working: _Run, name: str, planned: Plan, complete_until: datetime | None) -> Counter[str]:
    """Stage, verify and move into place what is planned; write the manifest last. Return the rows by symbol."""
    lake, lease, log = working.lake, working.lease, working.log
    written = _stage_bars(working, planned.partitions) if planned.partitions else []
    verify(working.staging, written, planned.partitions)
    part = f"{lease.holder}/actions"
    actions = _stage_actions(lake, part, planned)
    lease.check()
    promote(lake, written)
    if actions:
        promote_actions(lake, part, [item.symbol for item in actions])
    lake.discard_staged(lease.holder)
    partitions = published_partitions(written, planned.partitions)
    lake.publish(
        Manifest(name, datetime.now(UTC), partitions, tuple(actions), tuple(planned.vendor_days), complete_until)
    )
    rows: Counter[str] = Counter()
    for item in written:
        rows[item.symbol] += item.rows
    working.manifests.append(name)
    working.totals.update(
        partitions=len(written),
        sessions=sum(len(item.sessions) for item in written),
        rows=rows.total(),
        actions=len(actions),
        vendor_days=len(planned.vendor_days),
    )
    log(f"published {rows.total()} rows in {len(written)} partitions")
    if actions:
        log(f"published the corporate actions of {counted(len(actions), 'symbol')}")
    if planned.vendor_days:
        log(f"published Twelve Data's daily bars of {counted(len(planned.vendor_days), 'session')}")
    return rows


def _stage_actions(lake: Lake, part: str, planned: Plan) -> list[ActionsFile]:
    """Stage the files of the planned corporate actions. Raise BarflowError where rows differ from MongoDB's."""

    def stage(item: Changed) -> ActionsFile:
        rows = stage_actions(lake, part, item.symbol, item.versions, item.kinds)
        if rows != len(item.versions):
            raise BarflowError(
                f"{item.symbol}: MongoDB holds {len(item.versions)} versions of its corporate actions and {rows} "
                "were written. Nothing more was published; run `barflow process` again."
            )
        return ActionsFile(item.symbol, item.version, rows)

    return lake.in_threads(stage, planned.actions)


def _stage_bars(working: _Run, planned: Mapping[Key, Sessions]) -> list[Written]:
    """Stage the files of the planned partitions in Spark tasks."""
    settings = working.settings
    spark = working.spark(f"{len(planned)} partitions changed")
    working.log(f"writing {len(planned)} partitions")
    return stage_partitions(
        spark,
        planned,
        mongodb_uri=resolve(settings.mongodb_uri, "BARFLOW_MONGODB_URI"),
        database=settings.mongodb_database,
        lake_uri=working.lake.uri,
        run_id=working.lease.holder,
    )


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
        if key not in done and key[1] not in planned.get((key[0], key[1][:7]), ()):
            continue  # counted again with the others of its symbol, or new since the plan: the next run takes it
        if version == 0 or (counted[key][0] == version and counted[key][1] != bars):
            raise BarflowError(
                f"{' '.join(key)}: MongoDB counts {counted[key][1]} bars and {bars} were written. "
                "Nothing more was published; run `barflow process` again."
            )


def promote(lake: Lake, written: Sequence[Written]) -> None:
    """Move every written file into place.

    The history comes first: a reader of the bars and then of the history misses no version, but can find one in both.
    """
    lake.move((item.part, lake.history_path(item.symbol, item.month)) for item in written if item.is_history_new)
    lake.move((item.part, lake.path(item.symbol, item.month)) for item in written)


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
