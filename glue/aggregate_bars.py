"""The Glue job: aggregates the published partitions that no load has taken, and loads them into the warehouse.

Plain arguments, so that it runs the same under `python`, spark-submit and AWS Glue. The warehouse's DSN is a
secret and comes from the environment (BARFLOW_WAREHOUSE_DSN, the DSN or a secretsmanager: reference); Glue, where
a program cannot be given variables of its own choice, names the reference in an argument.
Progress goes to stderr; the last line on stdout is one JSON object.

    python glue/aggregate_bars.py --lake s3://bucket/lake
    python glue/aggregate_bars.py --lake .barflow/lake --full --symbols AAPL,MSFT
"""

from __future__ import annotations

import argparse
import importlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barflow.errors import BadInputError
from barflow.lake.partitions import Lake
from barflow.market.bars import BAR_TABLES
from barflow.market.sessions import utc_now
from barflow.pipeline import aggregate
from barflow.pipeline.aggregate import Plan
from barflow.pipeline.daily_history import daily_history
from barflow.pipeline.program import Say, as_known, run_program
from barflow.secrets import reference, resolve
from barflow.settings import load_settings, parse_symbols
from barflow.staging.ledger import new_run_id
from barflow.warehouse.connection import consumed_manifests
from barflow.warehouse.load import METRICS, TABLES, Load, record_failure

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LOCK_WAIT_SECONDS = 60.0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="aggregate_bars.py", description=__doc__.split("\n", 1)[0], allow_abbrev=False
    )
    options.add_argument("--lake", help="folder or s3:// URI of the lake (default: BARFLOW_LAKE_URI)")
    options.add_argument(
        "--warehouse", type=reference, help="secretsmanager: reference to its DSN (default: BARFLOW_WAREHOUSE_DSN)"
    )
    options.add_argument("--run-id", help="the load's id, for the ledger and the rows (default: a new one)")
    options.add_argument("--full", action="store_true", help="load everything in the lake again, not only what is new")
    options.add_argument("--symbols", type=parse_symbols, help="with --full: only these symbols, comma separated")
    return options


def main(argv: list[str] | None = None) -> int:
    return run_program(parser(), argv, _aggregate)


def _aggregate(arguments: argparse.Namespace, say: Say) -> dict[str, Any]:
    if arguments.symbols and not arguments.full:
        raise BadInputError("--symbols goes with --full: a manifest is loaded whole. Leave it out, or add --full.")
    given = {"lake_uri": arguments.lake, "warehouse_dsn": arguments.warehouse}
    settings = load_settings(**{name: value for name, value in given.items() if value})
    dsn = resolve(settings.warehouse_dsn, "BARFLOW_WAREHOUSE_DSN")
    lake = Lake(settings.require("lake_uri"))
    load_id, started_at = arguments.run_id or new_run_id(aggregate.HOP), utc_now()
    try:
        with Load.begun(dsn, load_id, LOCK_WAIT_SECONDS) as load:
            consumed = consumed_manifests(load.connection)
            if arguments.full:
                plan = aggregate.plan_full(lake, consumed, arguments.symbols)
            else:
                plan = aggregate.plan_new(lake, consumed)
            rows = _load(load, lake, plan, started_at, say)
    except BaseException as error:
        record_failure(dsn, load_id, started_at, str(as_known(error)))
        raise
    return {
        "run_id": load_id,
        "manifests": len(plan.manifests),
        "sessions": len(plan.touched),
        "rows": rows,
        "outcome": "loaded" if rows else "nothing new",
    }


def _load(load: Load, lake: Lake, plan: Plan, started_at: datetime, say: Say) -> dict[str, int]:
    """Aggregates and loads what was planned. Returns the rows by table."""
    if not plan.sessions:
        say("nothing was published since the last load")
        return {}
    say(f"{len(plan.touched)} sessions of {len({key[0] for key in plan.sessions})} symbols to load; starting Spark")
    from barflow.pipeline.spark import spark_session

    # mapInArrow asks for pandas; while the JVM starts there is time to import it.
    threading.Thread(target=importlib.import_module, args=("pandas",), daemon=True).start()
    spark = spark_session("barflow aggregate")
    say(f"aggregating into {len(TABLES)} tables")
    try:
        _copy(load, spark, aggregates(spark, lake, plan, load.dsn))
    except Exception:
        for symbol, month in sorted(plan.sessions):
            lake.read(symbol, month)  # names a damaged file and the way out, which Spark does not
        raise
    load.check(plan.touched)
    rows = load.commit(plan.touched, plan.whole, plan.manifests, started_at)
    say(f"loaded {sum(rows.values())} rows")
    return rows


def _copy(load: Load, spark: SparkSession, tables: Iterator[tuple[str, DataFrame]]) -> None:
    """Copies the tables side by side, each as soon as it is planned."""
    with ThreadPoolExecutor(len(TABLES)) as pool:
        try:
            for copied in [pool.submit(load.copy, table, rows) for table, rows in tables]:
                copied.result()
        except BaseException:
            spark.sparkContext.cancelAllJobs()  # the pool waits for them
            raise


def aggregates(spark: SparkSession, lake: Lake, plan: Plan, dsn: str) -> Iterator[tuple[str, DataFrame]]:
    """Each warehouse table with its rows, all columns but load_id, made by the SQL file of its name.

    They come one by one, so that Spark is at work on the first while the next are planned.
    """
    aggregate.bars_frame(spark, lake, plan).cache().createOrReplaceTempView("bars")
    for name in BAR_TABLES:
        rows = spark.sql(_sql(name))
        rows.createOrReplaceTempView(name)
        yield name, rows
    spark.sql(_sql("realized_vol")).createOrReplaceTempView("realized_vol")
    daily_history(spark, plan, dsn).createOrReplaceTempView("history")
    spark.sql(_sql("daily").format(longest_window=aggregate.LONGEST_WINDOW)).createOrReplaceTempView("daily")
    yield METRICS, spark.sql(_sql(METRICS))


def _sql(name: str) -> str:
    """The SQL file of that name: beside this program, or where Glue puts extra files, in its working folder."""
    beside = Path(__file__).with_name(f"{name}.sql")
    return (beside if beside.exists() else Path(beside.name)).read_text()


if __name__ == "__main__" and (code := main()):
    raise SystemExit(code)  # Glue takes any SystemExit for a failure, that of 0 as well
