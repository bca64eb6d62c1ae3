"""The other side of the measurements: peers and limits. Each function runs in its own process.

Each imports what it needs inside, so that the imports of the others do not count as its memory.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.answers import canned, milliseconds
from benchmarks.processes import measured_read


def official_client(path: str, symbol: str) -> dict[str, Any]:
    """Return the milliseconds of Twelve Data's own client, and the number of bars."""
    from twelvedata import TDClient
    from twelvedata.http_client import DefaultHttpClient

    http = DefaultHttpClient("https://api.twelvedata.com")
    http.session = canned(Path(path).read_bytes())
    client = TDClient(apikey="demo", http_client=http)

    def whole() -> int:
        return len(client.time_series(symbol=symbol, interval="5min", outputsize=5000, timezone="UTC").as_pandas())

    return {"bars": whole(), "whole": milliseconds(whole)}


def plain_to_parquet(uri: str, name: str, path: str) -> dict[str, Any]:
    """Write one document per bar to Parquet through the driver. Return the seconds of each step."""
    from pyspark.sql.functions import date_format

    from barflow.pipeline.spark import spark_session
    from barflow.staging.connection import connect

    spark = spark_session("plain")
    begun = time.perf_counter()
    documents = list(connect(uri, name)["plain_bars"].find({}, {"_id": 0}))
    found = time.perf_counter()
    schema = "symbol string, ts timestamp, open double, high double, low double, close double, volume long"
    frame = spark.createDataFrame(documents, schema)
    made = time.perf_counter()
    frame.withColumn("month", date_format("ts", "yyyy-MM")).write.partitionBy("symbol", "month").parquet(path)
    ended = time.perf_counter()
    return {"rows": len(documents), "find": found - begun, "frame": made - found, "write": ended - made}


def least_to_parquet(uri: str, name: str, lake: str, path: str) -> dict[str, Any]:
    """Read the session documents raw and write the lake's rows as one table. Return the seconds of each step.

    ``made`` is the time that prepares the table. It is no part of the work.
    """
    import pyarrow.parquet as pq

    from barflow.staging.connection import connect

    started = time.perf_counter()
    table = pq.read_table(f"{lake}/bars_5min")
    begun = time.perf_counter()
    bars = connect(uri, name)["bars"]
    for _ in bars.find_raw_batches({}, batch_size=500):
        pass
    drained = time.perf_counter()
    pq.write_table(table, path, compression="snappy")
    ended = time.perf_counter()
    return {
        "rows": table.num_rows,
        "made": begun - started,
        "drain": drained - begun,
        "write": ended - drained,
    }


def bare_copy(dsn: str) -> dict[str, Any]:
    """Copy the warehouse's rows into tables like its own. Return the seconds from the first COPY to the commit."""
    from psycopg import sql

    from barflow.warehouse.connection import connect
    from barflow.warehouse.load import TABLES

    rows = 0
    with connect(dsn) as connection:
        connection.execute("drop schema if exists bare cascade; create schema bare")
        ready: list[tuple[sql.Composed, bytes]] = []
        for name in TABLES:
            connection.execute(f"create table bare.{name} (like market.{name} including all)")
            columns = sql.SQL(", ").join(map(sql.Identifier, _columns(connection, name)))
            out = sql.SQL("copy (select {} from market.{}) to stdout (format csv)").format(
                columns, sql.Identifier(name)
            )
            with connection.cursor().copy(out) as copy:
                text = b"".join(copy)
            ready.append(
                (sql.SQL("copy bare.{} ({}) from stdin (format csv)").format(sql.Identifier(name), columns), text)
            )
        connection.commit()
        begun = time.perf_counter()
        for statement, text in ready:
            with connection.cursor() as cursor:
                with cursor.copy(statement) as copy:
                    copy.write(text)
                rows += cursor.rowcount
        connection.commit()
        ended = time.perf_counter()
        connection.execute("drop schema bare cascade")
    return {"rows": rows, "seconds": ended - begun}


def upsert(dsn: str) -> dict[str, Any]:
    """Upsert the warehouse's rows into tables like its own, from prepared DataFrames. Return the seconds."""
    import awswrangler
    import pandas as pd
    import pg8000

    from barflow.warehouse.connection import connect
    from barflow.warehouse.load import TABLES

    frames = {}
    with connect(dsn) as connection:
        connection.execute("drop schema if exists peer cascade; create schema peer")
        for name in TABLES:
            connection.execute(f"create table peer.{name} (like market.{name} including all)")
            columns = _columns(connection, name)
            with connection.cursor().copy(
                f"copy (select {', '.join(columns)} from market.{name}) to stdout (format csv, header)"
            ) as copy:
                frames[name] = pd.read_csv(io.BytesIO(b"".join(copy)))
            for column in ("bar_start", "session_date"):
                if column in frames[name]:
                    frames[name][column] = pd.to_datetime(frames[name][column])
    folder = parse_qs(urlsplit(dsn).query)["host"][0]
    peer = pg8000.connect(user="postgres", database=urlsplit(dsn).path.strip("/"), unix_sock=f"{folder}/.s.PGSQL.5432")
    begun = time.perf_counter()
    for name, frame in frames.items():
        keys = ["symbol", "session_date" if name == "daily_metrics" else "bar_start"]
        awswrangler.postgresql.to_sql(
            frame, peer, name, "peer", mode="upsert", upsert_conflict_columns=keys, use_column_names=True
        )
    seconds = time.perf_counter() - begun
    peer.close()
    return {"rows": sum(map(len, frames.values())), "seconds": seconds}


def bare_dataset(lake: str) -> dict[str, Any]:
    """Read all bars of a lake as a dataset of PyArrow. Return as ``measured_read`` does."""
    import pandas  # noqa: F401 - PyArrow imports it on first use
    import pyarrow.dataset as ds

    return measured_read(lambda: ds.dataset(f"{lake}/bars_5min", partitioning="hive").to_table())


def duckdb_table(lake: str) -> dict[str, Any]:
    """Read all bars of a lake with DuckDB into an Arrow table. Return as ``measured_read`` does."""
    import duckdb

    files = f"{lake}/bars_5min/*/*/*.parquet"
    return measured_read(lambda: duckdb.read_parquet(files, hive_partitioning=True).to_arrow_table())


def _columns(connection: Any, name: str) -> list[str]:
    """Return the columns of a table of the warehouse that are not generated."""
    found = connection.execute(
        "select column_name from information_schema.columns where table_schema = 'market' and table_name = %s "
        "and is_generated = 'NEVER' order by ordinal_position",
        [name],
    )
    return [column for (column,) in found]
