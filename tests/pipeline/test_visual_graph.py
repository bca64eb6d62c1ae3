"""The visual job, run node by node from its graph, writes the same rows to sandbox as the Glue job to market."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import psycopg
from harness import ROOT, Pipeline, random_session, revised
from psycopg import sql
from pyspark.sql import DataFrame, SparkSession

from barflow.market.arrow import spark_schema
from barflow.market.sessions import sessions_between
from barflow.pipeline.spark import spark_session

NODES: Mapping[str, Any] = json.loads((ROOT / "glue" / "visual_job.json").read_text())["CodeGenConfigurationNodes"]
TABLES = ("bar_30min", "bar_1h", "bar_1d", "daily_metrics")


def run_graph(pipeline: Pipeline) -> None:
    """Run the graph as Glue does: read the sources, run the SQL nodes on their inputs, append to the targets."""
    spark, frames = spark_session("visual job"), dict[str, DataFrame]()
    while len(frames) < len(NODES):
        for key, node in NODES.items():
            ((kind, options),) = node.items()
            if key not in frames and all(name in frames for name in options.get("Inputs", [])):
                frames[key] = _step(spark, pipeline, kind, options, frames)


def _step(
    spark: SparkSession, pipeline: Pipeline, kind: str, options: Mapping[str, Any], frames: Mapping[str, DataFrame]
) -> DataFrame:
    match kind:
        case "S3CatalogSource":
            return spark.read.schema(spark_schema()).parquet(f"{pipeline.lake_uri}/bars_5min")
        case "S3CsvSource":
            return spark.read.csv(str(ROOT / "barflow" / "market" / "sessions_xnys.csv"), header=options["WithHeader"])
        case "SparkSQL":
            for alias in options["SqlAliases"]:
                frames[alias["From"]].createOrReplaceTempView(alias["Alias"])
            return spark.sql(options["SqlQuery"])
        case "ConnectorDataTarget":
            (rows,) = (frames[name] for name in options["Inputs"])
            _append(pipeline.warehouse_dsn, options["Data"]["dbtable"], rows)
            return rows
    raise AssertionError(f"unknown kind of node: {kind}")


def _append(dsn: str, table: str, rows: DataFrame) -> None:
    """Append the rows with plain inserts, as Spark's JDBC writer does."""
    placeholders = sql.SQL(", ").join(sql.Placeholder() * len(rows.columns))
    columns = sql.SQL(", ").join(map(sql.Identifier, rows.columns))
    insert = sql.SQL("insert into {} ({}) values ({})").format(sql.Identifier(*table.split(".")), columns, placeholders)
    with psycopg.connect(dsn, options="-c timezone=UTC") as connection:
        connection.cursor().executemany(insert, [tuple(row) for row in rows.collect()])


def differing_rows(dsn: str) -> dict[str, int]:
    """Return by table how many rows only one of the two schemas has. Doubles are compared to nine decimals."""
    found = {}
    with psycopg.connect(dsn) as connection:
        for table in TABLES:
            columns = connection.execute(
                "select column_name, data_type from information_schema.columns "
                "where table_schema = 'sandbox' and table_name = %s",
                [table],
            ).fetchall()
            compared = ", ".join(f"round({name}::numeric, 9)" if "double" in kind else name for name, kind in columns)
            real, visual = (f"select {compared} from {schema}.{table}" for schema in ("market", "sandbox"))
            query = f"select count(*) from (({real} except all {visual}) union all ({visual} except all {real})) as d"
            count = connection.execute(query.encode()).fetchone()
            assert count is not None
            found[table] = count[0]
    return found


def test_sandbox_equals_market_also_after_a_correction_and_a_second_run(
    pipeline: Pipeline,
) -> None:
    # With a half day, and a session whose first bar is missing.
    days = [str(item.session_date) for item in sessions_between(date(2025, 11, 3), date(2025, 12, 3))]
    assert "2025-11-28" in days
    aapl = {day: random_session("AAPL", day, bars=42 if day == "2025-11-28" else 14) for day in days}
    late = random_session("BRK.B", days[-1], bars=9)
    for column in ("ts", "open", "high", "low", "close", "volume", "revision"):
        del getattr(late, column)[0]
    pipeline.stage([*aapl.values(), late])
    pipeline.process()
    pipeline.aggregate()
    run_graph(pipeline)
    assert differing_rows(pipeline.warehouse_dsn) == dict.fromkeys(TABLES, 0)
    pipeline.stage([revised(aapl[days[-3]], 3, close=aapl[days[-3]].low[3], volume=9)])
    pipeline.process()
    pipeline.aggregate()
    assert all(count > 0 for count in differing_rows(pipeline.warehouse_dsn).values())
    run_graph(pipeline)
    assert differing_rows(pipeline.warehouse_dsn) == dict.fromkeys(TABLES, 0)
