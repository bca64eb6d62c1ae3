"""The Spark tasks of process: read session documents from MongoDB and stage the Parquet files of each (symbol, month).

A month has one file of bars, and one of superseded versions if there are any. No version that the lake holds is lost:
a session that expired in MongoDB and was fetched again keeps the versions from before. No bar passes through the driver
or the JVM: each task uses PyMongo and PyArrow itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import bson
import pyarrow as pa
import pyarrow.compute as pc

from barflow.errors import BarflowError
from barflow.lake.partitions import Lake
from barflow.lake.versions import absent, history_table, rows_of, with_history
from barflow.market.versions import BarVersion
from barflow.pipeline.raw_sessions import read_raw
from barflow.pipeline.session_columns import SessionColumns, columns_of, to_table
from barflow.staging.connection import connect
from barflow.staging.sessions import Staging

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A task costs Spark about 50 ms. Each core gets some tasks, so that all are busy to the end.
TASKS_PER_CORE = 4
FEWEST_KEYS, MOST_KEYS = 50, 250
# From this many months of a symbol in a task, its files are listed: two requests, and none for files that do not exist.
MONTHS_TO_LIST = 3
# How many partitions of a task are worked on at once on S3. Each has a connection to MongoDB.
THREADS = 8

# A partition: symbol and month.
Key = tuple[str, str]
# Partitions of one task, each with the sessions that changed in it.
Chunk = list[tuple[Key, list[str]]]
# By session date: the version of its staged document, and its number of bars.
Sessions = dict[str, tuple[int, int]]
# The superseded versions that MongoDB holds, by the key of their session.
Versions = Mapping[str, list[BarVersion]]


@dataclass(frozen=True)
class Written:
    """A staged partition: the rows of its file and, per session read from MongoDB, (version, bars).

    ``history`` is the number of its superseded versions, and ``is_history_new`` whether their file is staged too.
    ``part`` is its staging folder. Each attempt of a task has its own, so a slow attempt that Spark gave up cannot
    replace the rows that were counted.
    """

    part: str
    symbol: str
    month: str
    rows: int
    sessions: Sessions
    history: int = 0
    is_history_new: bool = False


def stage_partitions(
    spark: SparkSession, planned: Mapping[Key, Sessions], *, mongodb_uri: str, database: str, lake_uri: str, run_id: str
) -> list[Written]:
    """Stage the next file of every planned partition in Spark tasks."""

    def task(chunk: Chunk) -> list[Written]:
        from pyspark import TaskContext

        staging, lake = Staging(connect(mongodb_uri, database, tz_aware=False)), Lake(lake_uri)
        part = f"{run_id}/{TaskContext.get().taskAttemptId()}"
        if lake.waits:
            return _in_threads(staging, lake, part, chunk)
        return [write_partition(lake, part, key, *found) for key, found in _sessions(staging, lake, chunk)]

    keys = sorted((key, sorted(days)) for key, days in planned.items())
    tasks = TASKS_PER_CORE * spark.sparkContext.defaultParallelism
    size = min(max(-(-len(keys) // tasks), FEWEST_KEYS), MOST_KEYS)
    chunks = [keys[start : start + size] for start in range(0, len(keys), size)]
    written: list[Written] = spark.sparkContext.parallelize(chunks, len(chunks)).flatMap(task).collect()
    return written


def _in_threads(staging: Staging, lake: Lake, part: str, chunk: Chunk) -> list[Written]:
    """Stage the partitions of a chunk at once: each one is mostly a wait for S3 and MongoDB."""
    months = Counter(symbol for (symbol, _), _ in chunk)
    lake.remember(symbol for symbol, count in months.items() if count >= MONTHS_TO_LIST)

    def stage(item: tuple[Key, list[str]]) -> Written:
        return write_partition(lake, part, item[0], *_read(staging, lake, *item))

    return lake.in_threads(stage, chunk, THREADS)


def _sessions(
    staging: Staging, lake: Lake, chunk: Chunk
) -> Iterator[tuple[Key, tuple[list[SessionColumns], dict[str, list[BarVersion]]]]]:
    """Yield the sessions to write per partition, with their superseded versions.

    These are the changed sessions, or the whole month if it has no file. The next query runs while the caller works on
    the sessions of the last one.
    """
    with ThreadPoolExecutor(1) as ahead:
        reading = ahead.submit(_read, staging, lake, *chunk[0])
        for (key, _), following in zip(chunk, [*chunk[1:], None], strict=True):
            found = reading.result()
            if following:
                reading = ahead.submit(_read, staging, lake, *following)
            yield key, found


def _read(
    staging: Staging, lake: Lake, key: Key, days: list[str]
) -> tuple[list[SessionColumns], dict[str, list[BarVersion]]]:
    symbol, month = key
    wanted: Container[str] | None = None
    first, last = f"{month}-01", f"{month}-31"
    if lake.exists(symbol, month):
        wanted, first, last = {*days}, days[0], days[-1]
    documents = staging.raw_between(symbol, first, last)
    found = [session for document in documents if (session := _read_session(document, wanted))]
    # A bar without a revision has no other version.
    return found, staging.versions.of([session.key for session in found if session.is_revised])


def _read_session(document: bytes, wanted: Container[str] | None) -> SessionColumns | None:
    """Return a document as columns, or None if its session is not wanted."""
    if session := read_raw(document):
        return session if wanted is None or session.session_date in wanted else None
    decoded = bson.decode(document)
    return columns_of(decoded) if wanted is None or decoded["session_date"] in wanted else None


def write_partition(
    lake: Lake, part: str, key: Key, sessions: list[SessionColumns], versions: Versions | None = None
) -> Written:
    """Stage one partition's files: the sessions read from MongoDB, and the other sessions of its old files."""
    symbol, month = key
    table = to_table(sorted(sessions, key=lambda session: session.session_date))
    days = table["session_date"].unique()
    old, old_history = lake.read(symbol, month), lake.read_history(symbol, month)
    kept, before = _divided(old, days)
    kept_history, before_history = _divided(old_history, days)
    stored = [item for found in (versions or {}).values() for item in found]
    table, superseded = with_history(table, [*stored, *absent(before, table), *rows_of(before_history)])
    if kept is not None and kept.num_rows:
        table = pa.concat_tables([kept, table]).sort_by("ts")
    past = history_table(superseded)
    if kept_history is not None and kept_history.num_rows:
        past = pa.concat_tables([kept_history, past]).sort_by([("ts", "ascending"), ("known_from", "ascending")])
    is_new = past.num_rows > 0 and (old_history is None or not past.equals(old_history))
    if is_new:
        _check_rows(f"{symbol} {month} (history)", past, lake.stage_file(part, lake.history_path(symbol, month), past))
    rows = lake.stage(part, symbol, month, table)
    _check_rows(f"{symbol} {month}", table, rows)
    counts = {session.session_date: (session.version, session.bars) for session in sessions}
    return Written(part, symbol, month, rows, counts, past.num_rows, is_new)


def _check_rows(name: str, table: pa.Table, rows: int) -> None:
    if rows != table.num_rows:
        raise BarflowError(f"{name}: {table.num_rows} rows were written and {rows} are in the file")


def _divided(table: pa.Table | None, days: pa.Array) -> tuple[pa.Table | None, pa.Table | None]:
    """Return the rows of the other sessions, and of these."""
    if table is None:
        return None, None
    among = pc.is_in(table["session_date"], value_set=days)
    return table.filter(pc.invert(among)), table.filter(among)
