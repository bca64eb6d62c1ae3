"""Process: publish the changed (symbol, month) partitions from MongoDB as Parquet.

A session has changed if the version of its document differs from the published version. Only documents updated since
shortly before the last successful run are compared. Spark tasks stage whole files. When every count agrees with
MongoDB, each file replaces the old one atomically, and the manifest is written last. If a run dies, the next run does
its work.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from barflow.errors import BadInputError, BarflowError
from barflow.lake.manifests import Manifest, Partition
from barflow.lake.partitions import Lake
from barflow.pipeline.partition_tasks import Key, Sessions, Written, stage_partitions
from barflow.pipeline.program import as_known
from barflow.progress import Log
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.staging.connection import connect
from barflow.staging.ledger import FAILED, SUCCEEDED, Lease, Ledger, new_run_id
from barflow.staging.sessions import Staging

HOP = "process"
# Documents are stamped just before they are written; no write takes nearly this long.
OVERLAP = timedelta(minutes=10)


@dataclass(frozen=True)
class ProcessReport:
    """What a run did: partitions and sessions written, rows of their files, and the manifest's run id if any."""

    run_id: str
    partitions: int
    sessions: int
    rows: int
    manifest: str | None
    outcome: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return asdict(self)


def run(
    settings: Settings, log: Log, *, run_id: str | None = None, symbols: Sequence[str] | None = None, full: bool = False
) -> ProcessReport:
    """Publish the changed sessions of all symbols, or only of ``symbols``. With ``full``, publish every session.

    Raises BadInputError for symbols without staged bars, BusyError while another run holds the lake's lease,
    BarflowError where counts differ from MongoDB's. Nothing is published then.
    """
    database = connect(resolve(settings.mongodb_uri, "BARFLOW_MONGODB_URI"), settings.mongodb_database)
    lake, ledger, staging = Lake(settings.require("lake_uri")), Ledger(database), Staging(database)
    staging.ensure()
    ledger.ensure()
    run_id, chosen = run_id or new_run_id(HOP), sorted(symbols) if symbols else None
    lease = Lease(database, f"{HOP} {lake.uri}", run_id, settings.lease_seconds)
    with lease.held(settings.lease_seconds * 2, log):
        ledger.start(HOP, run_id, lake=lake.uri, symbols=chosen)
        try:
            _check_staged(staging, chosen)
            lake.discard_staged()  # left by runs that died; this one holds the lease
            planned = changed(staging, ledger, lake, chosen, full)
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
        manifest = run_id if written else None
        ledger.finish(run_id, SUCCEEDED, {symbol: {"rows": n} for symbol, n in rows.items()}, manifest=manifest)
    return ProcessReport(
        run_id,
        partitions=len(written),
        sessions=sum(len(item.sessions) for item in written),
        rows=rows.total(),
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


def _publish(
    settings: Settings, staging: Staging, lake: Lake, lease: Lease, planned: Mapping[Key, Sessions], log: Log
) -> list[Written]:
    """Stage, verify and move into place the planned partitions; write the manifest last."""
    log(f"{len(planned)} partitions changed; starting Spark")
    from barflow.pipeline.spark import spark_session

    spark = spark_session("barflow process")
    log(f"writing {len(planned)} partitions")
    written = stage_partitions(
        spark,
        planned,
        mongodb_uri=resolve(settings.mongodb_uri, "BARFLOW_MONGODB_URI"),
        database=settings.mongodb_database,
        lake_uri=lake.uri,
        run_id=lease.holder,
    )
    verify(staging, written, planned)
    lease.check()
    promote(lake, lease.holder, written)
    lake.publish(manifest_of(lease.holder, written, planned))
    log(f"published {sum(item.rows for item in written)} rows in {len(written)} partitions")
    return written


def changed(staging: Staging, ledger: Ledger, lake: Lake, symbols: list[str] | None, full: bool) -> dict[Key, Sessions]:
    """Return the partitions to write, each with the sessions that changed, as MongoDB counts them.

    A published version is ignored if its run ended before the document's last update: a document that expired and was
    fetched again restarts at version 1, so equal versions can hold different bars.
    """
    published: dict[tuple[str, str], tuple[datetime, int]] = {}
    moment = None
    last = None if full else ledger.last(HOP, outcome=SUCCEEDED, lake=lake.uri, symbols=None)
    if last is not None:
        moment = last["started_at"] - OVERLAP
        for run in ledger.finished_since(HOP, moment, outcome=SUCCEEDED, lake=lake.uri, manifest={"$ne": None}):
            for partition in lake.manifest(run["manifest"]).partitions:
                for day, version in partition.versions.items():
                    done = (run["finished_at"], version)
                    published[partition.symbol, day] = max(done, published.get((partition.symbol, day), done))
    found: dict[Key, Sessions] = defaultdict(dict)
    for document in staging.counts(symbols, stamped_after=moment):
        symbol, day = document["symbol"], document["session_date"]
        until, version = published.get((symbol, day), (document["updated_at"], 0))
        if version != document["version"] or until < document["updated_at"]:
            found[symbol, day[:7]][day] = (document["version"], document["bars"])
    return dict(found)


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


def promote(lake: Lake, run_id: str, written: Iterable[Written]) -> None:
    """Move every written file into place, and remove what else the run staged."""
    by_part: dict[str, list[Key]] = defaultdict(list)
    for item in written:
        by_part[item.part].append((item.symbol, item.month))
    for part, keys in by_part.items():
        lake.promote(part, keys)
    lake.discard_staged(run_id)


def manifest_of(run_id: str, written: Iterable[Written], planned: Mapping[Key, Sessions]) -> Manifest:
    """Return the run's manifest: per partition, the sessions that changed and the version that was written."""
    partitions = tuple(
        Partition(
            item.symbol,
            item.month,
            item.rows,
            {day: item.sessions[day][0] for day in sorted(planned[item.symbol, item.month]) if day in item.sessions},
        )
        for item in sorted(written, key=lambda item: (item.symbol, item.month))
    )
    return Manifest(run_id, datetime.now(UTC), partitions)
