"""Aggregate: load the published bars that no load has consumed into the warehouse, with their aggregates.

A run takes the manifests in slices of a bounded number of sessions. Each slice is computed first; then one transaction
replaces exactly the (symbol, session) rows that its manifests touch. A changed session or split also changes later
daily metrics of its symbol, as far as the longest window reaches. Corporate actions are loaded with the factors that
follow from them; a load that changes no bar and no metric starts no Spark.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from barflow.errors import BadInputError, BarflowError
from barflow.lake.actions import read_actions
from barflow.lake.partitions import Lake
from barflow.market.actions import Version
from barflow.market.bars import BAR_TABLES
from barflow.market.instruments import load_instruments
from barflow.market.sessions import BAR, utc_now
from barflow.pipeline.arrow_slices import Computed, arrow_slices
from barflow.pipeline.daily_history import daily_history
from barflow.pipeline.frames import LONGEST_WINDOW, bars_frame, configure
from barflow.pipeline.load_plan import Plan, plan_full, plan_new
from barflow.pipeline.program import as_known
from barflow.pipeline.share_basis import ShareBasis, share_basis
from barflow.progress import Log
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.staging.ledger import new_run_id
from barflow.warehouse.adjustments import current_splits, straddled
from barflow.warehouse.former_symbols import Former
from barflow.warehouse.load import (
    IS_POSSIBLE,
    METRICS,
    POSSIBLE,
    TABLES,
    Change,
    Load,
    Loaded,
    Session,
    record_failure,
)
from barflow.warehouse.queries import consumed_manifests

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

HOP = "aggregate"
BAR_MINUTES = BAR // timedelta(minutes=1)
LOCK_WAIT_SECONDS = 60.0
# The intraday tables share glue/bar_buckets.sql.
BUCKET_MINUTES = {"bar_30min": 30, "bar_1h": 60}
# Returns the text of a file of glue/ by its stem.
ReadSql = Callable[[str], str]


@dataclass(frozen=True)
class AggregateReport:
    """What a run did: manifests consumed, sessions replaced, rows by table. Its first load has the id of the run."""

    run_id: str
    manifests: int
    sessions: int
    rows: dict[str, int]
    outcome: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return asdict(self)

    def with_slice(self, plan: Plan, rows: Mapping[str, int]) -> AggregateReport:
        """Return the report with the counts of one more slice added."""
        together = {name: self.rows.get(name, 0) + rows.get(name, 0) for name in {**self.rows, **rows}}
        return AggregateReport(
            self.run_id,
            manifests=self.manifests + len(plan.manifests),
            sessions=self.sessions + len(plan.touched),
            rows=together,
            outcome="loaded" if together else self.outcome,
        )


def run(
    settings: Settings,
    read_sql: ReadSql,
    log: Log,
    *,
    run_id: str | None = None,
    symbols: Sequence[str] | None = None,
    full: bool = False,
) -> AggregateReport:
    """Load what was published since the last load. With ``full``, load everything of all symbols, or of ``symbols``.

    Raises BadInputError for symbols without ``full`` or without bars in the lake, BusyError while another load holds
    the lock, BarflowError if the aggregates do not hold the same bars. Nothing of that slice is loaded then, and the
    slices before it stay loaded. BarflowError is also raised for symbols with impossible values, which are left out,
    after the others are loaded. A failure after the load begins is recorded in ``ops.load_run``.
    """
    if symbols and not full:
        raise BadInputError(
            "--symbols requires --full: a manifest is loaded whole. Nothing was loaded. Leave it out, or add --full."
        )
    dsn = resolve(settings.warehouse_dsn, "BARFLOW_WAREHOUSE_DSN")
    lake = Lake(settings.require("lake_uri"))
    former = load_instruments(settings.instruments_file).former
    report = AggregateReport(run_id or new_run_id(HOP), manifests=0, sessions=0, rows={}, outcome="nothing new")
    load_id, started_at = report.run_id, utc_now()
    impossible: list[Session] = []
    others: set[str] = set()
    try:
        with Load.begun(dsn, LOCK_WAIT_SECONDS) as load:
            consumed = consumed_manifests(load.connection, lake.manifest_ids())
            plans = plan_full(lake, consumed, symbols) if full else plan_new(lake, consumed)
            for number, plan in enumerate(plans, 1):
                loaded = _load(load, lake, plan, (load_id, started_at, former), read_sql, log)
                impossible += loaded.impossible
                others |= {symbol for symbol, _ in plan.sessions}
                report = report.with_slice(plan, loaded.rows)
                load_id, started_at = slice_id(report.run_id, number + 1), utc_now()
            if report.outcome == "nothing new":
                load.rename(load_id, former)
                log("nothing was published since the last load")
    except BaseException as error:
        record_failure(dsn, load_id, started_at, str(as_known(error)))
        raise
    if impossible:
        _raise_impossible(sorted(set(impossible)), others)
    return report


def slice_id(run_id: str, number: int) -> str:
    """Return the load id of a run's slice: the first one has the id of the run."""
    return run_id if number == 1 else f"{run_id}-slice-{number}"


def _load(load: Load, lake: Lake, plan: Plan, ids: tuple[str, datetime, Former], read_sql: ReadSql, log: Log) -> Loaded:
    """Compute one slice, then load it in one transaction."""
    load_id, started_at, former = ids
    actions = {symbol: read_actions(lake, symbol).versions for symbol in sorted(plan.actions)}
    basis = _share_basis(load, plan, actions)
    change = Change(load_id, started_at, plan.touched, plan.whole, plan.manifests, former, actions, plan.vendor_days)
    with _computed(lake, plan, basis, load.dsn, read_sql, log) as tables:
        expected = {name: table.rows for name, table in tables.items()}
        loaded = load.commit(change, lambda: arrow_slices(tables), expected)
    log(f"loaded {sum(loaded.rows.values())} rows")
    for symbol, day in loaded.unusable:
        log(
            f"{symbol} {day}: the dividend is not applied, because no close above it is stored for the "
            "session before. Earlier prices have no dividend factor."
        )
    return loaded


def _raise_impossible(impossible: list[Session], loaded: set[str]) -> None:
    held = sorted({symbol for symbol, _ in impossible})
    others = len(loaded - {*held})
    raise BarflowError(
        f"{impossible[0][0]} {impossible[0][1]} holds impossible prices, volumes or averages"
        f"{f', and {len(impossible) - 1} more sessions do' if impossible[1:] else ''}. The rows of "
        f"{', '.join(held)} were not loaded; those loaded before are unchanged. The rows of {others} other "
        f"symbol{'' if others == 1 else 's'} were loaded. "
        f"Correct the bars, then run `barflow aggregate --full --symbols {','.join(held)}`."
    )


def _share_basis(load: Load, plan: Plan, actions: Mapping[str, Sequence[Version]]) -> ShareBasis:
    """Return the splits of the planned symbols, and the ex-dates of changed ones that have sessions on both sides."""
    symbols = sorted(plan.actions | {symbol for symbol, _ in plan.sessions})
    basis = share_basis(current_splits(load.connection, symbols), actions, plan.whole)
    return replace(basis, changed=straddled(load.connection, basis.changed))


@contextmanager
def _computed(
    lake: Lake, plan: Plan, basis: ShareBasis, dsn: str, read_sql: ReadSql, log: Log
) -> Iterator[dict[str, Computed]]:
    """Compute the rows of all tables, and hold them in Spark's cache for a block.

    Yield nothing if the load changes no bar and no metric: Spark is then not started.
    """
    if not plan.sessions and not basis.changed:
        yield {}
        return
    if basis.changed:
        log(f"splits of {', '.join(sorted(basis.changed))} changed; metrics from their ex-dates on are written again")
    log(f"{len(plan.touched)} sessions of {len({key[0] for key in plan.sessions})} symbols to load; starting Spark")
    from barflow.pipeline.spark import spark_session

    # toPandas imports pandas; do that while the JVM starts.
    threading.Thread(target=importlib.import_module, args=("pandas",), daemon=True).start()
    spark = spark_session("barflow aggregate", daily_history.__module__)
    configure(spark, plan)
    log(f"aggregating into {len(TABLES)} tables")
    made: list[DataFrame] = []
    try:
        try:
            tables = _compute(spark, aggregates(spark, lake, plan, basis, dsn, read_sql), made)
        except Exception:
            for symbol, month in sorted(plan.sessions):
                lake.read(symbol, month)  # its error names a damaged file and the fix; Spark's does not
            raise
        yield tables
    finally:
        for frame in (spark.table("bars"), *made) if made else ():
            frame.unpersist()


def _compute(
    spark: SparkSession, tables: Iterator[tuple[str, DataFrame]], made: list[DataFrame]
) -> dict[str, Computed]:
    """Compute the tables concurrently, each as soon as it is planned. Add their frames to ``made``."""
    with ThreadPoolExecutor(len(TABLES)) as pool:
        try:
            waiting = {}
            for name, rows in tables:
                made.append(rows)
                waiting[name] = pool.submit(Computed.of, rows)
            return {name: computed.result() for name, computed in waiting.items()}
        except BaseException:
            spark.sparkContext.cancelAllJobs()  # the pool waits for them
            raise


def aggregates(
    spark: SparkSession, lake: Lake, plan: Plan, basis: ShareBasis, dsn: str, read_sql: ReadSql
) -> Iterator[tuple[str, DataFrame]]:
    """Yield each warehouse table with its rows (all columns but load_id), computed by the SQL file of its name.

    The bar tables have one more column: whether the values of the row are possible.

    They are yielded one by one, so Spark works on the first while the next ones are planned. Without a session to load,
    only the metrics are yielded.
    """
    bars_frame(spark, lake, plan).cache().createOrReplaceTempView("bars")
    for name in BAR_TABLES:
        rows = spark.sql(aggregate_sql(name, read_sql))
        rows.createOrReplaceTempView(name)
        if plan.sessions:
            yield name, rows.selectExpr("*", f"{POSSIBLE} as {IS_POSSIBLE}")
    spark.sql(aggregate_sql("realized_vol", read_sql)).createOrReplaceTempView("realized_vol")
    daily_history(spark, plan, basis.changed, dsn).createOrReplaceTempView("history")
    basis.factors(spark).createOrReplaceTempView("factors")
    basis.rebased(spark).createOrReplaceTempView("rebased")
    spark.sql(aggregate_sql("daily", read_sql)).createOrReplaceTempView("daily")
    yield METRICS, spark.sql(aggregate_sql(METRICS, read_sql))


def aggregate_sql(name: str, read_sql: ReadSql) -> str:
    """Return the Spark SQL of a warehouse table, or of an intermediate view."""
    if minutes := BUCKET_MINUTES.get(name):
        return read_sql("bar_buckets").format(minutes=minutes, slots=minutes // BAR_MINUTES)
    return read_sql(name).format(longest_window=LONGEST_WINDOW)
