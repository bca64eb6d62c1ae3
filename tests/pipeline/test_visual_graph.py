"""The visual job, run node by node as its graph says, leaves in the sandbox what the real job left in the market."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import psycopg
from harness import ROOT, Pipeline, made_up, revised
from psycopg import sql
from pyspark.sql import DataFrame, SparkSession

from barflow.market.arrow import spark_schema
from barflow.market.sessions import sessions_between
from barflow.pipeline.spark import spark_session

NODES: Mapping[str, Any] = json.loads((ROOT / "glue" / "visual_job.json").read_text())["CodeGenConfigurationNodes"]
TABLES = ("bar_30min", "bar_1h", "bar_1d", "daily_metrics")


def run_graph(pipeline: Pipeline) -> None:
    """What Glue does with the graph: sources read, SQL run on what feeds it, targets appended to."""
    spark, frames = spark_session("visual job"), dict[str, DataFrame]()
    while len(frames) < len(NODES):
        for key, node in NODES.items():
            ((kind, said),) = node.items()
            if key not in frames and all(name in frames for name in said.get("Inputs", [])):
                frames[key] = _step(spark, pipeline, kind, said, frames)


def _step(
    spark: SparkSession, pipeline: Pipeline, kind: str, said: Mapping[str, Any], frames: Mapping[str, DataFrame]
) -> DataFrame:
    match kind:
        case "S3CatalogSource":
            return spark.read.schema(spark_schema()).parquet(f"{pipeline.lake_uri}/bars_5min")
        case "S3CsvSource":
            return spark.read.csv(str(ROOT / "barflow" / "market" / "sessions_xnys.csv"), header=said["WithHeader"])
        case "SparkSQL":
            for alias in said["SqlAliases"]:
                frames[alias["From"]].createOrReplaceTempView(alias["Alias"])
            return spark.sql(said["SqlQuery"])
        case "ConnectorDataTarget":
            (rows,) = (frames[name] for name in said["Inputs"])
            _append(pipeline.warehouse_dsn, said["Data"]["dbtable"], rows)
            return rows
    raise AssertionError(f"no such kind of node here: {kind}")


def _append(dsn: str, table: str, rows: DataFrame) -> None:
    """Plain inserts, all that Spark's JDBC writer knows."""
    places = sql.SQL(", ").join(sql.Placeholder() * len(rows.columns))
    columns = sql.SQL(", ").join(map(sql.Identifier, rows.columns))
    insert = sql.SQL("insert into {} ({}) values ({})").format(sql.Identifier(*table.split(".")), columns, places)
    with psycopg.connect(dsn, options="-c timezone=UTC") as connection:
        connection.cursor().executemany(insert, [tuple(row) for row in rows.collect()])


def differing(dsn: str) -> dict[str, int]:
    """Rows that the two schemas do not have in common, by table; a sum of doubles may differ in its last digit."""
    found = {}
    with psycopg.connect(dsn) as connection:
        for table in TABLES:
            columns = connection.execute(
                "select column_name, data_type from information_schema.columns "
                "where table_schema = 'sandbox' and table_name = %s",
                [table],
            ).fetchall()
            compared = ", ".join(f"round({name}::numeric, 9)" if "double" in kind else name for name, kind in columns)
            one, other = (f"select {compared} from {schema}.{table}" for schema in ("market", "sandbox"))
            query = f"select count(*) from (({one} except all {other}) union all ({other} except all {one})) as d"
            differ = connection.execute(query.encode()).fetchone()
            assert differ is not None
            found[table] = differ[0]
    return found


def test_it_leaves_in_the_sandbox_what_the_real_job_left_in_the_market_also_when_run_again_after_a_correction(
    pipeline: Pipeline,
) -> None:
    # With a half day, and a session whose first bar is missing.
    days = [str(item.session_date) for item in sessions_between(date(2025, 11, 3), date(2025, 12, 3))]
    assert "2025-11-28" in days
    aapl = {day: made_up("AAPL", day, bars=42 if day == "2025-11-28" else 14) for day in days}
    late = made_up("BRK.B", days[-1], bars=9)
    for column in ("ts", "open", "high", "low", "close", "volume", "revision"):
        del getattr(late, column)[0]
    pipeline.stage([*aapl.values(), late])
    pipeline.process()
    pipeline.aggregate()
    run_graph(pipeline)
    assert differing(pipeline.warehouse_dsn) == dict.fromkeys(TABLES, 0)
    pipeline.stage([revised(aapl[days[-3]], 3, close=aapl[days[-3]].low[3], volume=9)])
    pipeline.process()
    pipeline.aggregate()
    assert all(count > 0 for count in differing(pipeline.warehouse_dsn).values())
    run_graph(pipeline)
    assert differing(pipeline.warehouse_dsn) == dict.fromkeys(TABLES, 0)
