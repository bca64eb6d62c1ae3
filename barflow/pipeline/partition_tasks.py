"""The Spark tasks of process: read session documents from MongoDB and stage one Parquet file per (symbol, month).

No bar passes through the driver or the JVM: each task uses PyMongo and PyArrow itself.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from barflow.errors import BarflowError
from barflow.lake.partitions import Lake
from barflow.market.arrow import arrow_schema
from barflow.market.bars import ARRAYS, FIELDS
from barflow.staging.connection import Document, connect
from barflow.staging.sessions import Staging

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

KEYS_PER_TASK = 50
# The array module's type codes by Arrow type; times count from the epoch.
TYPE_CODES = {"timestamp[us, tz=UTC]": "q", "date32": "i", "double": "d", "int64": "q", "int32": "i"}
EPOCH, MICROSECOND = datetime.fromisoformat("1970-01-01"), timedelta(microseconds=1)

# A partition: symbol and month.
Key = tuple[str, str]
# Partitions of one task, each with the sessions that changed in it.
Chunk = list[tuple[Key, list[str]]]
# By session date: the version of its staged document, and its number of bars.
Sessions = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Written:
    """A staged partition: the rows of its file and, per session read from MongoDB, (version, bars).

    ``part`` is its staging folder. Each attempt of a task has its own, so a slow attempt that Spark gave up cannot
    replace the rows that were counted.
    """

    part: str
    symbol: str
    month: str
    rows: int
    sessions: Sessions


def stage_partitions(
    spark: SparkSession, planned: Mapping[Key, Sessions], *, mongodb_uri: str, database: str, lake_uri: str, run_id: str
) -> list[Written]:
    """Stage the next file of every planned partition in Spark tasks."""

    def task(chunk: Chunk) -> list[Written]:
        from pyspark import TaskContext

        staging, lake = Staging(connect(mongodb_uri, database, tz_aware=False)), Lake(lake_uri)
        part = f"{run_id}/{TaskContext.get().taskAttemptId()}"
        return [write_partition(lake, part, key, found) for key, found in _documents(staging, lake, chunk)]

    keys = sorted((key, sorted(days)) for key, days in planned.items())
    chunks = [keys[start : start + KEYS_PER_TASK] for start in range(0, len(keys), KEYS_PER_TASK)]
    written: list[Written] = spark.sparkContext.parallelize(chunks, len(chunks)).flatMap(task).collect()
    return written


def _documents(staging: Staging, lake: Lake, chunk: Chunk) -> Iterator[tuple[Key, list[Document]]]:
    """Yield the documents to write per partition: the changed sessions, or the whole month if it has no file.

    The next query runs while the caller works on the documents of the last one.
    """
    with ThreadPoolExecutor(1) as ahead:
        reading = ahead.submit(_read, staging, lake, *chunk[0])
        for (key, _), following in zip(chunk, [*chunk[1:], None], strict=True):
            documents = reading.result()
            if following:
                reading = ahead.submit(_read, staging, lake, *following)
            yield key, documents


def _read(staging: Staging, lake: Lake, key: Key, days: list[str]) -> list[Document]:
    symbol, month = key
    if not lake.exists(symbol, month):
        return list(staging.between(symbol, f"{month}-01", f"{month}-31"))
    return [item for item in staging.between(symbol, days[0], days[-1]) if item["session_date"] in days]


def write_partition(lake: Lake, part: str, key: Key, documents: list[Document]) -> Written:
    """Stage one partition's file: the sessions read from MongoDB, and the other sessions of its old file."""
    symbol, month = key
    documents.sort(key=lambda document: document["session_date"])
    table = to_table(documents)
    old = lake.read(symbol, month)
    if old is not None:
        kept = old.filter(pc.invert(pc.is_in(old["session_date"], value_set=table["session_date"].unique())))
        if kept.num_rows:
            table = pa.concat_tables([kept, table]).sort_by("ts")
    rows = lake.stage(part, symbol, month, table)
    if rows != table.num_rows:
        raise BarflowError(f"{symbol} {month}: {table.num_rows} rows were written and {rows} are in the file")
    sessions = {document["session_date"]: (document["version"], len(document["ts"])) for document in documents}
    return Written(part, symbol, month, rows, sessions)


def to_table(documents: list[Document]) -> pa.Table:
    """Return session documents (naive UTC dates, in day order) as one table of the lake's schema, sorted by ts.

    Raises BarflowError for a document whose arrays differ in length: its rows would mix with those of others.
    """
    for document in documents:
        if len({len(document[name]) for name in ARRAYS}) > 1:
            symbol, day = document["symbol"], document["session_date"]
            raise BarflowError(
                f"{symbol} {day}: the arrays of its document differ in length. Nothing was published. Delete "
                f"{document['_id']} from the collection bars, then run "
                f"`barflow backfill --symbols {symbol} --start {day} --end {day}`."
            )
    schema, columns = arrow_schema(), []
    for item in FIELDS:
        # Through a buffer: PyArrow imports pandas (0.7 s) to convert a list of Python objects.
        values = array(
            TYPE_CODES[item.arrow], chain.from_iterable(_numbers(document, item.name) for document in documents)
        )
        kind = schema.field(item.name).type
        columns.append(pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)]))
    return pa.Table.from_arrays(columns, schema=schema)


def _numbers(document: Document, name: str) -> Iterable[float]:
    """Return one column of a session as Arrow stores it: times in microseconds and dates in days since the epoch."""
    if name == "ts":
        return [(moment - EPOCH) // MICROSECOND for moment in document["ts"]]
    if name == "session_date":
        return repeat((datetime.fromisoformat(document["session_date"]) - EPOCH).days, len(document["ts"]))
    values: list[float] = document[name]
    return values
