"""Our side of the measurements that are not whole programs. Each function runs in its own process.

Ingest is measured as it runs in a Lambda, so this module imports nothing heavy.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from benchmarks.answers import canned, milliseconds
from benchmarks.processes import ROOT, measured_read

HEAVY = ("pandas", "numpy", "pyarrow")
YEAR = "2024-01-02", "2025-06-13"
NO_LIMITS: dict[str, Any] = {"credits_per_minute": 10**6, "credits_per_day": None}


def parse(path: str, symbol: str) -> dict[str, Any]:
    """Return the milliseconds of the whole and of its parts, the number of bars, and what of ``HEAVY`` was imported."""
    from barflow.market.validation import validate
    from barflow.twelvedata.client import Answer, TwelveDataClient

    text = Path(path).read_bytes()
    values = orjson.loads(text)["values"]
    newest, oldest = (datetime.fromisoformat(values[index]["datetime"]).replace(tzinfo=UTC) for index in (0, -1))
    now = newest.replace(hour=22)
    client = TwelveDataClient("https://api.twelvedata.com", None, session=canned(text), batch_size=1, **NO_LIMITS)

    def whole() -> int:
        (found,) = client.time_series([symbol], oldest, now)
        assert isinstance(found, Answer)
        return validate(symbol, found.meta, found.values, now).accepted

    return {
        "bars": whole(),
        "whole": milliseconds(whole),
        "json": milliseconds(lambda: orjson.loads(text)),
        "validation": milliseconds(lambda: validate(symbol, {}, values, now)),
        "imported": [name for name in HEAVY if name in sys.modules],
    }


def tick(url: str, uri: str, name: str, symbols: list[str], now: str, days: int) -> dict[str, Any]:
    """Return the seconds and bars of the first tick of the symbols, and of the next one."""
    from pydantic import SecretStr

    from barflow.pipeline.ingest import Ingest
    from barflow.staging.connection import connect
    from barflow.twelvedata.client import TwelveDataClient

    moment = datetime.fromisoformat(now)
    client = TwelveDataClient(url, SecretStr("emulator-key"), batch_size=50, **NO_LIMITS)
    ingest = Ingest(client, connect(uri, name), history_sessions=days, revision_sessions=2, clock=lambda: moment)
    begun = time.perf_counter()
    first = ingest.tick(symbols).total
    ended = time.perf_counter()
    second = ingest.tick(symbols).total
    again = time.perf_counter()
    assert first.received == first.new
    assert second.received == second.unchanged
    return {"bars": first.new, "first": ended - begun, "bars_again": second.received, "again": again - ended}


def spark_alone() -> dict[str, Any]:
    """Start a Spark session that does nothing."""
    from barflow.pipeline.spark import spark_session

    spark_session("alone")
    return {}


def load(dsn: str, lake: str) -> dict[str, Any]:
    """Return the rows and the seconds of a load into an empty warehouse. Spark has computed and cached them before."""
    from barflow.lake.partitions import Lake
    from barflow.market.sessions import utc_now
    from barflow.pipeline.aggregate import aggregates
    from barflow.pipeline.arrow_slices import Computed, arrow_slices
    from barflow.pipeline.frames import configure
    from barflow.pipeline.load_plan import plan_full
    from barflow.pipeline.share_basis import ShareBasis
    from barflow.pipeline.spark import spark_session
    from barflow.warehouse.load import TABLES, Change, Load

    spec = importlib.util.spec_from_file_location("aggregate_bars", ROOT / "glue" / "aggregate_bars.py")
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)

    spark, opened = spark_session("load"), Lake(lake)
    (plan,) = plan_full(opened, set(), None)
    configure(spark, plan)
    importlib.import_module("pandas")
    with Load.begun(dsn, 60) as load:
        load.connection.execute(f"truncate ops.load_run, {', '.join(f'market.{name}' for name in TABLES)}")
        frames = aggregates(spark, opened, plan, ShareBasis(), dsn, program.read_sql)
        tables = {name: Computed.of(frame) for name, frame in frames}
        spark.range(1).toPandas()
        begun = time.perf_counter()
        change = Change("benchmark", utc_now(), plan.touched, plan.whole, plan.manifests, former={})
        expected = {name: table.rows for name, table in tables.items()}
        loaded = load.commit(change, lambda: arrow_slices(tables), expected)
        seconds = time.perf_counter() - begun
    return {"rows": sum(loaded.rows.values()), "seconds": seconds}


def read_archive(lake: str, symbols: list[str], interval: Any = "5min") -> dict[str, Any]:
    """Read a year of the archive. Return the rows, the size of the result, the seconds and the memory."""
    import pandas  # noqa: F401 - PyArrow imports it on first use

    from barflow.lake.read import read

    return measured_read(lambda: read(symbols, *YEAR, interval=interval, lake=lake))
