"""The continuous series of a share: its bars of the archive, under every symbol that it had, as known at a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from barflow.lake.as_of import known_at
from barflow.lake.bar_files import BARS, HISTORY, files_of, read_columns
from barflow.lake.partitions import Lake
from barflow.market.arrow import arrow_schema
from barflow.market.instruments import Instruments

KEYS = ("ts", "session_date")
DAY = timedelta(days=1)
_KNOWN_UNTIL = pa.field("known_until", pa.timestamp("us", tz="UTC"), nullable=False)


@dataclass(frozen=True)
class Share:
    """A share of the archive: its present symbol, and for each name that has files, newest first, its days and files.

    ``files`` maps a month to its file.
    """

    symbol: str
    parts: tuple[Part, ...] = ()

    @property
    def months(self) -> list[str]:
        """Return the months that have bars, in order."""
        return sorted({month for part in self.parts for month in part.files})


@dataclass(frozen=True)
class Part:
    """What the archive has of a share under one name: the first and last day of the share there, and the files."""

    first: date
    last: date
    files: Mapping[str, fs.FileInfo]
    history: Mapping[str, fs.FileInfo] = field(default_factory=dict)


def find_share(lake: Lake, instruments: Instruments, symbol: str, *, with_history: bool = False) -> Share:
    """Return the files of the share with this present symbol. It has no parts if the archive has no bars of it."""
    parts = []
    for name in instruments.stored_names([symbol]):
        last_day = instruments.former.get(name, (name, date.min))[1]
        first, last = (date.min, last_day) if name != symbol else (min(last_day, date.max - DAY) + DAY, date.max)
        if files := files_of(lake, BARS, name):
            parts.append(Part(first, last, files, files_of(lake, HISTORY, name) if with_history else {}))
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

    The columns are ``ts``, ``session_date`` and ``columns``, in the order of the lake's schema; None: all of it. Each
    session comes whole from the newest name that has it. With ``as_of`` (UTC), the bars are those that were known then.
    """
    schema = _schema(None if columns is None else {*columns, *KEYS, *(["known_from"] if as_of else [])})
    found: list[pa.Table] = []
    held: list[pa.Array] = []
    for part in share.parts:
        bars = _read_part(lake, part, (max(first, part.first), min(last, part.last)), schema, as_of, threads)
        for days in held:
            bars = bars.filter(pc.invert(pc.is_in(bars["session_date"], days)))
        if len(share.parts) > 1:
            held.append(pc.unique(bars["session_date"]))
        found.append(bars)
    if not found:
        return schema.empty_table()
    return found[0] if len(found) == 1 else pa.concat_tables(found).sort_by("ts")


def _read_part(
    lake: Lake, part: Part, days: tuple[date, date], schema: pa.Schema, as_of: datetime | None, threads: int
) -> pa.Table:
    first, last = days

    def read(month: str) -> pa.Table:
        # The current versions first: process publishes a superseded version before the one that follows it.
        bars = read_columns(lake, part.files[month], schema)
        if as_of is not None:
            file = part.history.get(month)
            history = read_columns(lake, file, schema.append(_KNOWN_UNTIL)) if file else None
            bars = known_at(bars, history, as_of)
        inside = f"{first:%Y-%m}" < month < f"{last:%Y-%m}"
        return bars if inside else _between(bars, first, last)

    months = [month for month in sorted(part.files) if f"{first:%Y-%m}" <= month <= f"{last:%Y-%m}"]
    return pa.concat_tables([schema.empty_table(), *_each(read, months, threads)])


def _each(read: Callable[[str], pa.Table], months: Sequence[str], threads: int) -> list[pa.Table]:
    if threads == 1 or len(months) < 2:
        return [read(month) for month in months]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(read, months))


def _between(bars: pa.Table, first: date, last: date) -> pa.Table:
    days = bars["session_date"]
    return bars.filter(pc.and_(pc.greater_equal(days, pa.scalar(first)), pc.less_equal(days, pa.scalar(last))))


def _schema(columns: set[str] | None) -> pa.Schema:
    """Return these columns of the lake's schema, or all of it."""
    whole = arrow_schema()
    if columns is not None and "known_from" not in whole.names:
        whole = whole.append(pa.field("known_from", pa.timestamp("us", tz="UTC"), nullable=False))
    return pa.schema([item for item in whole if columns is None or item.name in columns])
