"""The continuous series of a share: its bars of the archive, under every symbol that it had, as known at a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from barflow.lake.as_of import known_at
from barflow.lake.bar_files import BARS, HISTORY, files_of, read_columns
from barflow.lake.partitions import Lake
from barflow.market.arrow import arrow_schema, history_schema
from barflow.market.instruments import Instruments

KEYS = ("ts", "session_date")
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Part:
    """What the archive has of a share under one name: the first and last day of the share there, and its files.

    ``files`` maps a month (``2025-07``) to its file.
    """

    name: str
    first: date
    last: date
    files: Mapping[str, fs.FileInfo]


@dataclass(frozen=True)
class Share:
    """A share of the archive by its present symbol, and its part under each name that has files, newest name first."""

    symbol: str
    parts: tuple[Part, ...] = ()

    @property
    def months(self) -> list[str]:
        """Return the months that have bars, in order."""
        return sorted({month for part in self.parts for month in part.files})


def find_share(lake: Lake, instruments: Instruments, symbol: str) -> Share:
    """Return the share with this present symbol. It has no parts if the archive has no bars of it."""
    parts = []
    for name in instruments.stored_names([symbol]):
        _, last_day = instruments.former.get(name, (name, None))
        first, last = date.min, date.max
        if name != symbol:
            last = last_day or date.max
        elif last_day:  # until that day, the symbol was another share's
            first = last_day + DAY
        if files := files_of(lake, BARS, name):
            parts.append(Part(name, first, last, files))
    return Share(symbol, tuple(parts))


def read_series(
    lake: Lake,
    share: Share,
    first: date,
    last: date,
    *,
    columns: Iterable[str] | None = None,
    as_of: datetime | None = None,
    threads: int = 1,
) -> pa.Table:
    """Return the bars of a share's sessions from ``first`` to ``last``, both included, sorted by ts.

    The columns are ts, session_date and ``columns``, in the order of the lake's schema; None: all of it. Each session
    comes whole from the newest name that has it. With ``as_of`` (UTC), the bars are those that were known then.
    """
    wanted = None if columns is None else {*columns, *KEYS, *(["known_from"] if as_of else [])}
    schema = pa.schema([item for item in arrow_schema() if wanted is None or item.name in wanted])
    found: list[pa.Table] = []
    held: list[pa.Array] = []
    for part in share.parts:
        bars = _read_part(lake, part, (max(first, part.first), min(last, part.last)), schema, as_of, threads)
        for days in held:
            bars = bars.filter(pc.invert(pc.is_in(bars["session_date"], days)))
        if len(share.parts) > 1:
            held.append(pc.unique(bars["session_date"]))
        found.append(bars)
    bars = pa.concat_tables([schema.empty_table(), *found])
    return bars.sort_by("ts") if len(found) > 1 else bars


def _read_part(
    lake: Lake, part: Part, days: tuple[date, date], schema: pa.Schema, as_of: datetime | None, threads: int
) -> pa.Table:
    first, last = days
    months = [month for month in sorted(part.files) if f"{first:%Y-%m}" <= month <= f"{last:%Y-%m}"]
    tables = _each(lambda month: read_columns(lake, part.files[month], schema), months, threads)
    if as_of is not None:
        # Listed after the bars are read: process publishes a superseded version before the one that follows it.
        files = files_of(lake, HISTORY, part.name)
        columns = pa.schema([item for item in history_schema() if item.name in (*schema.names, "known_until")])
        superseded = {month: read_columns(lake, files[month], columns) for month in months if month in files}
        tables = [known_at(bars, superseded.get(month), as_of) for month, bars in zip(months, tables, strict=True)]
    for place, month in enumerate(months):
        if not f"{first:%Y-%m}" < month < f"{last:%Y-%m}":
            tables[place] = _between(tables[place], first, last)
    return pa.concat_tables([schema.empty_table(), *tables])


def _each(read: Callable[[str], pa.Table], months: Sequence[str], threads: int) -> list[pa.Table]:
    if threads == 1 or len(months) < 2:
        return [read(month) for month in months]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(read, months))


def _between(bars: pa.Table, first: date, last: date) -> pa.Table:
    days = bars["session_date"]
    return bars.filter(pc.and_(pc.greater_equal(days, pa.scalar(first)), pc.less_equal(days, pa.scalar(last))))
