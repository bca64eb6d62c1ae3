"""Process: the changed (symbol, month) partitions, from staging to Parquet.

What changed is found by the version of each staged document, not by clocks alone: the documents stamped since a
little before the last successful run are compared with the versions that its manifests published. Tasks read
MongoDB themselves and stage whole files; only when every count agrees with MongoDB are the files put in place
and the manifest written. A run that dies changes nothing that readers see, and the next one does its work.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from barflow.bars import ARRAYS, arrow_schema
from barflow.errors import BarflowError
from barflow.lake import Lake, Manifest, Partition
from barflow.ledger import SUCCEEDED, Ledger
from barflow.staging import Document, Staging, connect

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HOP = "process"
# A document is stamped just before it is written; this is far more than a write can take.
OVERLAP = timedelta(minutes=10)
# Symbols of one month that a task reads with one query.
SYMBOLS_PER_QUERY = 20
TASKS_PER_CORE = 4

Key = tuple[str, str]
Versions = dict[str, int]

RESULT = pa.schema([("symbol", pa.string()), ("month", pa.string()), ("rows", pa.int64()), ("sessions", pa.string())])
RESULT_DDL = "symbol string, month string, rows bigint, sessions string"


@dataclass(frozen=True)
class Written:
    """A staged partition: the rows of its file, and of each session it took from MongoDB (version, bars)."""

    symbol: str
    month: str
    rows: int
    sessions: dict[str, tuple[int, int]]


def changed(staging: Staging, ledger: Ledger, lake: Lake, symbols: list[str] | None, full: bool) -> dict[Key, Versions]:
    """The partitions to write, each with the sessions that changed and their versions."""
    published: dict[tuple[str, str], int] = {}
    moment = None
    last = None if full else ledger.last(HOP, outcome=SUCCEEDED, lake=lake.uri, symbols=None)
    if last is not None:
        moment = last["started_at"] - OVERLAP
        for run in ledger.finished_since(HOP, moment, outcome=SUCCEEDED, lake=lake.uri, manifest={"$ne": None}):
            for partition in lake.manifest(run["manifest"]).partitions:
                for day, version in partition.versions.items():
                    published[partition.symbol, day] = max(version, published.get((partition.symbol, day), 0))
    found: dict[Key, Versions] = defaultdict(dict)
    for document in staging.changed_since(moment, symbols):
        symbol, day = document["symbol"], document["session_date"]
        if published.get((symbol, day)) != document["version"]:
            found[symbol, day[:7]][day] = document["version"]
    return dict(found)


def stage_partitions(
    spark: SparkSession, keys: Iterable[Key], *, mongodb_uri: str, database: str, lake_uri: str, run_id: str
) -> list[Written]:
    """Has Spark's tasks write the next file of every key; no bar passes through the driver."""

    def task(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        staging = Staging(connect(mongodb_uri, database, tz_aware=False))
        lake = Lake(lake_uri)
        for batch in batches:
            wanted = [(row["symbol"], row["month"]) for row in batch.to_pylist()]
            done = [write_partition(lake, run_id, key, documents) for key, documents in _documents(staging, wanted)]
            rows = [
                {"symbol": item.symbol, "month": item.month, "rows": item.rows, "sessions": json.dumps(item.sessions)}
                for item in done
            ]
            yield pa.RecordBatch.from_pylist(rows, schema=RESULT)

    ordered = sorted(keys, key=lambda key: (key[1], key[0]))
    tasks = max(1, min(len(ordered) // SYMBOLS_PER_QUERY, spark.sparkContext.defaultParallelism * TASKS_PER_CORE))
    frame = spark.createDataFrame(spark.sparkContext.parallelize(ordered, tasks), "symbol string, month string")
    return [
        Written(row.symbol, row.month, row.rows, {day: (n[0], n[1]) for day, n in json.loads(row.sessions).items()})
        for row in frame.mapInArrow(task, RESULT_DDL).collect()
    ]


def _documents(staging: Staging, keys: list[Key]) -> Iterator[tuple[Key, list[Document]]]:
    """The staged documents of each key, some symbols of one month a query."""
    by_month: dict[str, list[str]] = defaultdict(list)
    for symbol, month in keys:
        by_month[month].append(symbol)
    for month, symbols in by_month.items():
        for start in range(0, len(symbols), SYMBOLS_PER_QUERY):
            found: dict[str, list[Document]] = {name: [] for name in symbols[start : start + SYMBOLS_PER_QUERY]}
            for document in staging.month(list(found), month):
                found[document["symbol"]].append(document)
            for symbol, documents in found.items():
                yield (symbol, month), documents


def write_partition(lake: Lake, run_id: str, key: Key, documents: list[Document]) -> Written:
    """Stages one partition's file: its staged sessions, and those of the old file that staging no longer holds."""
    symbol, month = key
    table = to_table(documents)
    old = lake.read(symbol, month)
    if old is not None:
        days = pa.array([date.fromisoformat(document["session_date"]) for document in documents], pa.date32())
        kept = old.filter(pc.invert(pc.is_in(old["session_date"], value_set=days)))
        if kept.num_rows:
            table = pa.concat_tables([kept, table]).sort_by("ts")
    rows = lake.stage(run_id, symbol, month, table)
    if rows != table.num_rows:
        raise BarflowError(f"{symbol} {month}: {table.num_rows} rows were written and {rows} are in the file")
    sessions = {document["session_date"]: (document["version"], len(document["ts"])) for document in documents}
    return Written(symbol, month, rows, sessions)


def to_table(documents: list[Document]) -> pa.Table:
    """Session documents (naive UTC dates, in day order) as one table of the lake's schema, sorted by ts."""
    columns: dict[str, Any] = {
        name: list(chain.from_iterable(document[name] for document in documents)) for name in ARRAYS
    }
    columns["session_date"] = list(
        chain.from_iterable([date.fromisoformat(item["session_date"])] * len(item["ts"]) for item in documents)
    )
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in arrow_schema()}, arrow_schema())


def verify(staging: Staging, written: Iterable[Written]) -> None:
    """Holds what was written against MongoDB's own counts. Raises BarflowError on the first difference.

    A session that ingest changed in the meantime has another version; the next run takes it.
    """
    expected = {(item.symbol, day): counts for item in written for day, counts in item.sessions.items()}
    if not expected:
        return
    symbols = sorted({symbol for symbol, _ in expected})
    since = date.fromisoformat(min(day for _, day in expected))
    for document in staging.counts(symbols, since):
        found = expected.pop((document["symbol"], document["session_date"]), None)
        if found and found[0] == document["version"] and found[1] != document["bars"]:
            raise BarflowError(
                f"{document['symbol']} {document['session_date']}: MongoDB holds {document['bars']} bars and "
                f"{found[1]} were written. Nothing was published; run `barflow process` again."
            )
    if expected:
        missing = ", ".join(f"{symbol} {day}" for symbol, day in sorted(expected)[:3])
        raise BarflowError(f"{missing}: gone from MongoDB while they were written. Nothing was published; run again.")


def manifest_of(run_id: str, written: Iterable[Written], planned: Mapping[Key, Versions]) -> Manifest:
    """What the run publishes: of every partition the sessions that had changed, at the version that was written."""
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
