"""Spark frames that the aggregates start from: the planned bars with their slots, and small frames from Python rows."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import date
from typing import TYPE_CHECKING, Any

from barflow.errors import BarflowError
from barflow.lake.partitions import Lake
from barflow.market.arrow import spark_schema
from barflow.market.sessions import BAR, session
from barflow.pipeline.load_plan import Plan

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# The longest window of the daily metrics, in sessions: sma_50. A metric depends on at most this many sessions before
# its own, so a changed session changes the metrics of at most this many sessions after it.
LONGEST_WINDOW = 50
COLUMNS = (
    "symbol string, session_date date, ts timestamp, open double, high double, low double, close double, volume long, "
    "opens timestamp, session_bars int, slot int"
)
# Rows of bars in a partition of Spark's tasks: it bounds the memory of the JVM.
ROWS_PER_PARTITION = 200_000
# Spark's option that takes paths as they are, not as patterns: a folder's name may hold [ ] { } * and ?.
PLAIN_PATHS = ("__globPaths__", "false")


def configure(spark: SparkSession, plan: Plan) -> None:
    """Configure Arrow and about ``ROWS_PER_PARTITION`` bars per partition, with at least one partition per core."""
    bars = sum(found.expected_bars for _, day in plan.touched if (found := session(day)))
    partitions = max(spark.sparkContext.defaultParallelism, -(-bars // ROWS_PER_PARTITION))
    spark.conf.set("spark.sql.shuffle.partitions", str(partitions))
    spark.conf.set("spark.sql.execution.arrow.pyspark.enabled", "true")
    spark.conf.set("spark.sql.execution.arrow.pyspark.fallback.enabled", "false")


def bars_frame(spark: SparkSession, lake: Lake, plan: Plan) -> DataFrame:
    """Return the bars of the planned sessions with their slot in the session.

    Columns: symbol, session_date, ts (bar open, UTC), open, high, low, close (dollars), volume (shares); opens (the
    session's open, UTC), session_bars (5-minute bars that a full session has), slot (0 = the session's first bar).
    One symbol's rows are in one partition. Raises BarflowError when a planned partition is not in the lake.
    """
    if not plan.sessions:
        return small_frame(spark, [], COLUMNS)
    paths = []
    for symbol, month in sorted(plan.sessions):
        if not lake.exists(symbol, month):
            raise BarflowError(
                f"{symbol} {month} was published and is not in the lake {lake.uri}. Nothing more was loaded. "
                f"Run `barflow process --full --symbols {symbol}`, then this again."
            )
        paths.append(lake.spark_path(symbol, month))
    reader = spark.read.schema(spark_schema()).option(*PLAIN_PATHS).option("basePath", lake.spark_path())
    rows = reader.parquet(*paths)
    days = small_frame(
        spark, _calendar_rows(plan), "session_date date, opens timestamp, session_bars int, symbols array<string>"
    )
    touched = days.selectExpr("explode(symbols) as symbol", "session_date", "opens", "session_bars")
    slot = f"cast((unix_timestamp(ts) - unix_timestamp(opens)) div {int(BAR.total_seconds())} as int) as slot"
    # Partitioned by symbol, so no aggregate or window shuffles rows again.
    joined = rows.join(touched.hint("broadcast"), ["symbol", "session_date"])
    return joined.drop("revision", "known_from", "month").selectExpr("*", slot).repartition("symbol")


def small_frame(spark: SparkSession, rows: list[dict[str, Any]], columns: str) -> DataFrame:
    """Return a frame of a few rows, passed as JSON text: ``createDataFrame`` would start Python workers."""
    query = f"select inline(from_json(:rows, 'array<struct<{columns}>>'))"
    if not rows:
        query += " where false"  # Spark then leaves the frame out of every join
    return spark.sql(query, {"rows": json.dumps(rows)})


def _calendar_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return one row per touched day: its session, and the symbols that it touches."""
    symbols: dict[date, list[str]] = defaultdict(list)
    for symbol, day in plan.touched:
        symbols[day].append(symbol)
    rows = []
    for day, names in symbols.items():
        traded = session(day)
        if traded is None:
            raise BarflowError(
                f"{names[0]} {day}: the lake has bars of a day without a session. Check market/sessions_xnys.csv."
            )
        hours = {"opens": traded.opens.isoformat(), "session_bars": traded.expected_bars}
        rows.append({"session_date": day.isoformat(), **hours, "symbols": names})
    return rows
