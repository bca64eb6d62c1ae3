"""The data of the benchmarks: generated session documents in MongoDB, and files of a lake.

It is deterministic: a symbol's bars depend on its name and on the number of days. The newest session is that of
13 June 2025. The last 20 sessions are full days, in two months.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bson.int64 import Int64
from pymongo.database import Database

from barflow.lake.partitions import FILE_NAME, REPEATED, STEADY
from barflow.market.arrow import arrow_schema
from barflow.market.bars import INTERVAL, PRICES
from barflow.market.sessions import Session, last_sessions, utc_now
from barflow.staging.connection import Document
from barflow.staging.sessions import Staging, from_document

LAST_CLOSE = datetime.fromisoformat("2025-06-13T20:00:00+00:00")
# The age of the seeds: old enough that an incremental run does not read them again.
STAGED = timedelta(days=1)
DOCUMENTS_A_WRITE = 500


def symbols(count: int) -> list[str]:
    """Return so many symbols: ``S000``, ``S001`` and so on."""
    return [f"S{number:03}" for number in range(count)]


def sessions(days: int) -> list[Session]:
    """Return the last so many sessions up to 13 June 2025, oldest first."""
    return last_sessions(LAST_CLOSE, days)


def seed_sessions(database: Database[Document], names: Sequence[str], days: int, but_last: int = 0) -> int:
    """Stage the sessions of all symbols, the newest without its last ``but_last`` bars. Return the number of bars."""
    staging = Staging(database)
    staging.ensure()
    made = (document for name in names for document in session_documents(name, days, but_last))
    return sum(len(document["ts"]) for document in _insert(database, "bars", made))


def seed_plain(database: Database[Document], names: Sequence[str], days: int) -> int:
    """Store the same bars as one document per bar, as a simpler system does. Return the number of bars."""
    columns = ("ts", *PRICES)
    made = (
        {"symbol": name, **dict(zip(columns, values, strict=True)), "volume": int(volume)}
        for name in names
        for document in session_documents(name, days)
        for *values, volume in zip(*(document[column] for column in (*columns, "volume")), strict=True)
    )
    return sum(1 for _ in _insert(database, "plain_bars", made, 10_000))


def add_bars(database: Database[Document], names: Sequence[str], days: int, but_last: int) -> None:
    """Save the newest session without its last ``but_last`` bars, as a tick does."""
    parts = (list(session_documents(name, days, but_last))[-1] for name in names)
    Staging(database).save([(from_document(part), utc_now()) for part in parts], "benchmark")


def fill_lake(lake: Path, names: Sequence[str], days: int) -> int:
    """Write the files of a lake with these bars, as process writes them. Return the number of bars."""
    found = sessions(days)
    moments = np.array([slot.replace(tzinfo=None) for item in found for slot in item.slots], "datetime64[us]")
    dates = np.repeat([np.datetime64(item.session_date) for item in found], [item.expected_bars for item in found])
    starts = [0, *(1 + np.flatnonzero(np.diff(dates.astype("datetime64[M]").astype(int)))).tolist(), len(moments)]
    # Each tick asks some seconds after its bar's close.
    seconds = np.random.Generator(np.random.PCG64(0)).integers(302_000, 309_000, len(moments))
    asked = moments + seconds.astype("timedelta64[ms]")
    for name in names:
        made = walk(name, len(moments)) | {
            "ts": moments,
            "session_date": dates,
            "revision": np.zeros(len(moments), "int32"),
            "known_from": asked,
        }
        table = pa.table([pa.array(made[item.name]).cast(item.type) for item in arrow_schema()], arrow_schema())
        for start, end in pairwise(starts):
            path = lake / "bars_5min" / f"symbol={name}" / f"month={dates[start].astype('datetime64[M]')}" / FILE_NAME
            path.parent.mkdir(parents=True)
            part = table.slice(start, end - start)
            pq.write_table(part, path, compression="snappy", use_dictionary=REPEATED, column_encoding=STEADY)
    return len(names) * len(moments)


def session_documents(name: str, days: int, but_last: int = 0) -> Iterator[Document]:
    """Yield a symbol's documents as barflow.staging.sessions writes them, oldest session first."""
    found = sessions(days)
    made = walk(name, sum(item.expected_bars for item in found))
    columns = {column: values.tolist() for column, values in made.items()}
    columns["volume"] = [Int64(shares) for shares in columns["volume"]]
    start = 0
    for item in found:
        bars = item.expected_bars - (but_last if item is found[-1] else 0)
        staged = utc_now() - STAGED
        yield {
            "_id": f"{name}|{INTERVAL}|{item.session_date}",
            "symbol": name,
            "interval": INTERVAL,
            "session_date": item.session_date.isoformat(),
            "version": 1,
            "run_id": "benchmark",
            "first_seen_at": staged,
            "updated_at": staged,
            "requested_at": staged,
            "ts": list(item.slots[:bars]),
            **{column: values[start : start + bars] for column, values in columns.items()},
            "revision": [0] * bars,
            "known_from": [staged] * bars,
        }
        start += item.expected_bars


def walk(name: str, count: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return a symbol's random walk of so many bars: prices rounded to hundredths of a cent, and volumes."""
    random = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    close = np.exp(np.log(random.uniform(20, 400)) + np.cumsum(random.normal(0, 0.0011, count)))
    open_ = np.concatenate((close[:1], close[:-1]))
    wicks = 1 + np.abs(random.normal(0, 0.0006, (2, count)))
    prices = (open_, np.maximum(open_, close) * wicks[0], np.minimum(open_, close) / wicks[1], close)
    rounded = {column: np.round(values, 4) for column, values in zip(PRICES, prices, strict=True)}
    return {**rounded, "volume": np.exp(random.normal(11, 0.8, count)).astype(int)}


def _insert(
    database: Database[Document], name: str, documents: Iterable[Document], at_once: int = DOCUMENTS_A_WRITE
) -> Iterator[Document]:
    waiting = iter(documents)
    while part := list(islice(waiting, at_once)):
        # The documents are valid, and checking them takes the server three times as long as storing them.
        database[name].insert_many(part, ordered=False, bypass_document_validation=True)
        yield from part
