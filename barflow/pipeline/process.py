"""Process: the changed (symbol, month) partitions, from staging to Parquet.

What changed is found by the version of each staged document, not by clocks alone: the documents stamped since a
little before the last successful run are compared with the versions that its manifests published. Tasks read
MongoDB themselves and stage whole files; only when every count agrees with MongoDB are the files put in place
and the manifest written. A run that dies changes nothing that readers see, and the next one does its work.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from barflow.errors import BarflowError
from barflow.lake.partitions import Lake, Manifest, Partition
from barflow.market.bars import ARRAYS, FIELDS, arrow_schema
from barflow.staging.connection import Document, connect
from barflow.staging.ledger import SUCCEEDED, Ledger
from barflow.staging.sessions import Staging

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HOP = "process"
# A document is stamped just before it is written; this is far more than a write can take.
OVERLAP = timedelta(minutes=10)
KEYS_PER_TASK = 50
# What the arrays are made of, by Arrow's type; time counts from the epoch.
BUFFERS = {"timestamp[us, tz=UTC]": "q", "date32": "i", "double": "d", "int64": "q", "int32": "i"}
EPOCH, MICROSECOND = datetime.fromisoformat("1970-01-01"), timedelta(microseconds=1)

Key = tuple[str, str]
# Some keys, each with the days that changed in it.
Chunk = list[tuple[Key, list[str]]]
# By session: the version of its staged document, and how many bars that holds.
Sessions = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Written:
    """A staged partition: the rows of its file, and of each session it took from MongoDB (version, bars).

    ``part`` is where it is staged: each attempt of a task has its own, so that one that was given up for lost cannot
    put its older rows over those that were counted.
    """

    part: str
    symbol: str
    month: str
    rows: int
    sessions: Sessions


def changed(staging: Staging, ledger: Ledger, lake: Lake, symbols: list[str] | None, full: bool) -> dict[Key, Sessions]:
    """The partitions to write, each with the sessions that changed, as MongoDB counts them.

    A version is published only by a run that ended after the document got it: one that expired and came back counts
    from 1 again.
    """
    published: dict[tuple[str, str], tuple[datetime, int]] = {}
    moment = None
    last = None if full else ledger.last(HOP, outcome=SUCCEEDED, lake=lake.uri, symbols=None)
    if last is not None:
        moment = last["started_at"] - OVERLAP
        for run in ledger.finished_since(HOP, moment, outcome=SUCCEEDED, lake=lake.uri, manifest={"$ne": None}):
            for partition in lake.manifest(run["manifest"]).partitions:
                for day, version in partition.versions.items():
                    done = (run["finished_at"], version)
                    published[partition.symbol, day] = max(done, published.get((partition.symbol, day), done))
    found: dict[Key, Sessions] = defaultdict(dict)
    for document in staging.counts(symbols, stamped_after=moment):
        symbol, day = document["symbol"], document["session_date"]
        until, version = published.get((symbol, day), (document["updated_at"], 0))
        if version != document["version"] or until < document["updated_at"]:
            found[symbol, day[:7]][day] = (document["version"], document["bars"])
    return dict(found)


def stage_partitions(
    spark: SparkSession, planned: Mapping[Key, Sessions], *, mongodb_uri: str, database: str, lake_uri: str, run_id: str
) -> list[Written]:
    """Has Spark's tasks write the next file of every key; no bar passes through the driver or the JVM."""

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
    """The documents of each key's changed sessions; of its whole month where it has no file yet.

    The next query runs while the caller works on the last one's documents.
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
    """Stages one partition's file: the sessions read from MongoDB, and the other sessions of the old file."""
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
    """Session documents (naive UTC dates, in day order) as one table of the lake's schema, sorted by ts.

    Raises BarflowError for a document whose columns differ in length: its rows would be mixed with others'.
    """
    for document in documents:
        if len({len(document[name]) for name in ARRAYS}) > 1:
            symbol, day = document["symbol"], document["session_date"]
            raise BarflowError(
                f"{symbol} {day}: the columns of its document differ in length. Nothing was published. Delete "
                f"{document['_id']} from the collection bars, then run "
                f"`barflow backfill --symbols {symbol} --start {day} --end {day}`."
            )
    schema, columns = arrow_schema(), []
    for item in FIELDS:
        # By way of a buffer: to make an array of Python's objects, PyArrow would import pandas, for most of a second.
        values = array(
            BUFFERS[item.arrow], chain.from_iterable(_numbers(document, item.name) for document in documents)
        )
        kind = schema.field(item.name).type
        columns.append(pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)]))
    return pa.Table.from_arrays(columns, schema=schema)


def _numbers(document: Document, name: str) -> Iterable[float]:
    """One column of a session as Arrow keeps it: time in microseconds and days since the epoch."""
    if name == "ts":
        return [(moment - EPOCH) // MICROSECOND for moment in document["ts"]]
    if name == "session_date":
        return repeat((datetime.fromisoformat(document["session_date"]) - EPOCH).days, len(document["ts"]))
    values: list[float] = document[name]
    return values


def verify(staging: Staging, written: Iterable[Written], planned: Mapping[Key, Sessions]) -> None:
    """Holds what was written against MongoDB's own counts. Raises BarflowError when they differ.

    A session that ingest changed since it was counted is counted again; when it changes once more, its version is
    newer than the published one and the next run takes it.
    """
    done = {(item.symbol, day): counts for item in written for day, counts in item.sessions.items()}
    counted = {(symbol, day): counts for (symbol, _), days in planned.items() for day, counts in days.items()}
    again = sorted(key for key, counts in done.items() if counted.get(key, (0, 0))[0] != counts[0])
    if again:
        since = date.fromisoformat(min(day for _, day in again))
        for document in staging.counts(sorted({symbol for symbol, _ in again}), since):
            counted[document["symbol"], document["session_date"]] = (document["version"], document["bars"])
    for key in sorted({*done, *counted}):
        version, bars = done.get(key, (0, 0))
        if version == 0 and key not in done and (key[0], key[1][:7]) not in planned:
            continue  # counted again for its symbol only
        if version == 0 or (counted[key][0] == version and counted[key][1] != bars):
            raise BarflowError(
                f"{' '.join(key)}: MongoDB counts {counted[key][1]} bars and {bars} were written. "
                "Nothing was published; run `barflow process` again."
            )


def promote(lake: Lake, run_id: str, written: Iterable[Written]) -> None:
    """Puts every written file in its partition's place, and clears away what else the run has staged."""
    by_part: dict[str, list[Key]] = defaultdict(list)
    for item in written:
        by_part[item.part].append((item.symbol, item.month))
    for part, keys in by_part.items():
        lake.promote(part, keys)
    lake.discard_staged(run_id)


def manifest_of(run_id: str, written: Iterable[Written], planned: Mapping[Key, Sessions]) -> Manifest:
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
