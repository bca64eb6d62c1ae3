"""Aggregate: load the published bars that no load has consumed into the warehouse, with their aggregates.

A load replaces exactly the (symbol, session) rows that its manifests touch, in one transaction. A changed session or
split also changes later daily metrics of its symbol, as far as the longest window reaches. Corporate actions are loaded
with the factors that follow from them; a load that changes no bar and no metric starts no Spark.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from barflow.errors import BadInputError, BarflowError
from barflow.lake.actions import read_actions
from barflow.lake.partitions import Lake
from barflow.market.actions import Version
from barflow.market.bars import BAR_TABLES
from barflow.market.instruments import load_instruments
from barflow.market.sessions import BAR, utc_now
from barflow.pipeline.daily_history import daily_history
from barflow.pipeline.frames import LONGEST_WINDOW, bars_frame
from barflow.pipeline.load_plan import Plan, plan_full, plan_new
from barflow.pipeline.program import as_known
from barflow.pipeline.share_basis import ShareBasis, share_basis
from barflow.progress import Log
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.staging.ledger import new_run_id
from barflow.warehouse.adjustments import current_splits, straddled
from barflow.warehouse.load import METRICS, TABLES, Load, record_failure
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
    """What a load did: manifests consumed, sessions replaced, rows by table."""

    run_id: str
    manifests: int
    sessions: int
    rows: dict[str, int]
    outcome: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return asdict(self)


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
    the lock, BarflowError if the aggregates do not hold the same bars. Nothing is loaded then. BarflowError is also
    raised for symbols with impossible values, which are left out, after the others are loaded. A failure after the
    load begins is recorded in ``ops.load_run``.
    """
    if symbols and not full:
        raise BadInputError(
            "--symbols requires --full: a manifest is loaded whole. Nothing was loaded. Leave it out, or add --full."
        )
    dsn = resolve(settings.warehouse_dsn, "BARFLOW_WAREHOUSE_DSN")
    lake = Lake(settings.require("lake_uri"))
    former = load_instruments(settings.instruments_file).former
    load_id, started_at = run_id or new_run_id(HOP), utc_now()
    try:
        with Load.begun(dsn, load_id, LOCK_WAIT_SECONDS) as load:
            consumed = consumed_manifests(load.connection, lake.manifest_ids())
            plan = plan_full(lake, consumed, symbols) if full else plan_new(lake, consumed)
            if plan:
                actions = {symbol: read_actions(lake, symbol).versions for symbol in sorted(plan.actions)}
                basis = _share_basis(load, plan, actions)
                impossible = _stage(load, lake, plan, basis, read_sql, log)
                rows = load.commit(
                    plan.touched,
                    plan.whole,
                    plan.manifests,
                    started_at,
                    former=former,
                    actions=actions,
                    vendor_days=plan.vendor_days,
                )
                log(f"loaded {sum(rows.values())} rows")
                for symbol, day in load.unusable:
                    log(
                        f"{symbol} {day}: the dividend is not applied, because no close above it is stored for the "
                        "session before. Earlier prices have no dividend factor."
                    )
            else:
                load.rename(former)
                log("nothing was published since the last load")
                rows, impossible = {}, []
    except BaseException as error:
        record_failure(dsn, load_id, started_at, str(as_known(error)))
        raise
    if impossible:
        held = sorted({symbol for symbol, _ in impossible})
        others = len({symbol for symbol, _ in plan.sessions} - {*held})
        raise BarflowError(
            f"{impossible[0][0]} {impossible[0][1]} holds impossible prices, volumes or averages"
            f"{f', and {len(impossible) - 1} more sessions do' if impossible[1:] else ''}. The rows of "
            f"{', '.join(held)} were not loaded; those loaded before are unchanged. The rows of {others} other "
            f"symbol{'' if others == 1 else 's'} were loaded. "
            f"Correct the bars, then run `barflow aggregate --full --symbols {','.join(held)}`."
        )
    return AggregateReport(
        load_id,
        manifests=len(plan.manifests),
        sessions=len(plan.touched),
        rows=rows,
        outcome="loaded" if rows else "nothing new",
    )


def _share_basis(load: Load, plan: Plan, actions: Mapping[str, Sequence[Version]]) -> ShareBasis:
    """Return the splits of the planned symbols, and the ex-dates of changed ones that have sessions on both sides."""
    symbols = sorted(plan.actions | {symbol for symbol, _ in plan.sessions})
    basis = share_basis(current_splits(load.connection, symbols), actions, plan.whole)
    return replace(basis, changed=straddled(load.connection, basis.changed))


def _stage(
    load: Load, lake: Lake, plan: Plan, basis: ShareBasis, read_sql: ReadSql, log: Log
) -> list[tuple[str, date]]:
    """Stage the rows of all tables in the warehouse and check them. Return the sessions with impossible values.

    Do nothing if the load changes no bar and no metric.
    """
    if not plan.sessions and not basis.changed:
        return []
    if basis.changed:
        log(f"splits of {', '.join(sorted(basis.changed))} changed; metrics from their ex-dates on are written again")
    log(f"{len(plan.touched)} sessions of {len({key[0] for key in plan.sessions})} symbols to load; starting Spark")
    from barflow.pipeline.spark import spark_session

    # mapInArrow imports pandas; do that while the JVM starts.
    threading.Thread(target=importlib.import_module, args=("pandas",), daemon=True).start()
    spark = spark_session("barflow aggregate")
    log(f"aggregating into {len(TABLES)} tables")
    try:
        _copy(load, spark, aggregates(spark, lake, plan, basis, load.dsn, read_sql))
    except Exception:
        for symbol, month in sorted(plan.sessions):
            lake.read(symbol, month)  # its error names a damaged file and the fix; Spark's does not
        raise
    return load.check(plan.touched)


def _copy(load: Load, spark: SparkSession, tables: Iterator[tuple[str, DataFrame]]) -> None:
    """Copy the tables concurrently, each as soon as it is planned."""
    with ThreadPoolExecutor(len(TABLES)) as pool:
        try:
            for copied in [pool.submit(load.copy, table, rows) for table, rows in tables]:
                copied.result()
        except BaseException:
            spark.sparkContext.cancelAllJobs()  # the pool waits for them
            raise


def aggregates(
    spark: SparkSession, lake: Lake, plan: Plan, basis: ShareBasis, dsn: str, read_sql: ReadSql
) -> Iterator[tuple[str, DataFrame]]:
    """Yield each warehouse table with its rows (all columns but load_id), computed by the SQL file of its name.

    They are yielded one by one, so that Spark works on the first while the next ones are planned. Without a session to
    load, only the metrics are yielded.
    """
    bars_frame(spark, lake, plan).cache().createOrReplaceTempView("bars")
    for name in BAR_TABLES:
        rows = spark.sql(aggregate_sql(name, read_sql))
        rows.createOrReplaceTempView(name)
        if plan.sessions:
            yield name, rows
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
