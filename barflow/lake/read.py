"""The public Python API: bars, symbols, corporate actions and sessions of the Parquet archive as Arrow tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from barflow.errors import BadInputError
from barflow.lake.bar_files import BARS, on_disk, reading
from barflow.lake.partitions import Lake
from barflow.lake.series import Share, find_share, read_series
from barflow.market.actions import Adjust
from barflow.market.arrow import arrow_schema
from barflow.market.instruments import Instruments, load_instruments
from barflow.market.sessions import parse_moment, sessions_between
from barflow.settings import load_settings
from barflow.symbol import parse_symbols

# The lake of the state folder that the commands use without settings.
LOCAL_LAKE = Path(".barflow/lake")
# Requests to S3 wait for the network, not for a core.
S3_THREADS = 16
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Request:
    """What to read of each share: sessions (both days included), interval, adjustment, moment (UTC), and columns."""

    first: date
    last: date
    interval: str = "5min"
    adjust: Adjust = "none"
    as_of: datetime | None = None
    columns: tuple[str, ...] = ()


def read(
    symbols: str | Iterable[str],
    start: date | str,
    end: date | str,
    *,
    interval: str = "5min",
    adjust: Adjust = "splits",
    as_of: datetime | str | None = None,
    columns: Iterable[str] | None = None,
    lake: str | Path | None = None,
) -> pa.Table:
    """Return bars of the archive, sorted by symbol and ts.

    Args:
        symbols: One symbol or several.
        start: The first session (New York), such as ``2025-07-02``.
        end: The last session, included.
        interval: ``5min``.
        adjust: ``none`` (as stored).
        as_of: Read what was known at this moment: an aware datetime, or ISO text with an offset. None: now.
        columns: Only these columns, in this order. None: all of them.
        lake: A folder or ``s3://bucket/prefix``. None: BARFLOW_LAKE_URI, or else ``.barflow/lake``.

    Raises:
        BadInputError: An argument is wrong, there is no lake, or the archive has no bars of a symbol.
        BarflowError: A file is damaged, or S3 does not answer.
    """
    request = Request(
        *_days(start, end), interval, adjust, None if as_of is None else parse_moment(as_of), tuple(columns or ())
    )
    return read_shares(open_lake(lake), _instruments(), _symbols(symbols), request)


def symbols(*, lake: str | Path | None = None) -> list[str]:
    """Return the present symbols of the shares that the archive has bars of, sorted."""
    raise NotImplementedError


def actions(
    symbols: str | Iterable[str] | None = None,
    *,
    as_of: datetime | str | None = None,
    lake: str | Path | None = None,
) -> pa.Table:
    """Return the splits and dividends of the archive."""
    raise NotImplementedError


def sessions(start: date | str, end: date | str) -> pa.Table:
    """Return the sessions of the exchange."""
    raise NotImplementedError


def read_shares(lake: Lake, instruments: Instruments, symbols: Iterable[str], request: Request) -> pa.Table:
    """Return the bars of shares by any of their symbols, as ``read`` does."""
    schema = _schema(request)
    threads = _threads(lake)
    shares = _found(lake, instruments, symbols, threads, with_history=request.as_of is not None)
    each = max(1, threads // len(shares))
    tables = _map(lambda share: _bars(lake, share, request, schema, each), shares, threads)
    return pa.concat_tables(tables)


def _bars(lake: Lake, share: Share, request: Request, schema: pa.Schema, threads: int) -> pa.Table:
    columns = schema.names
    bars = read_series(lake, share, request.first, request.last, columns=columns, as_of=request.as_of, threads=threads)
    values = [pa.repeat(pa.scalar(share.symbol), bars.num_rows) if name == "symbol" else bars[name] for name in columns]
    return pa.table(values, schema)


def _schema(request: Request) -> pa.Schema:
    whole = arrow_schema().insert(0, pa.field("symbol", pa.string(), nullable=False))
    if "known_from" not in whole.names:
        whole = whole.append(pa.field("known_from", pa.timestamp("us", tz="UTC"), nullable=False))
    return whole


def _found(
    lake: Lake, instruments: Instruments, symbols: Iterable[str], threads: int, *, with_history: bool
) -> list[Share]:
    """Return the shares by symbol. Raise BadInputError that names those without bars."""
    present = sorted(instruments.resolve(symbols)[0])
    shares = _map(lambda symbol: find_share(lake, instruments, symbol, with_history=with_history), present, threads)
    if missing := [share.symbol for share in shares if not share.parts]:
        raise BadInputError(
            f"the archive has no bars of {', '.join(missing)}. Check the spelling: barflow.symbols() lists what it has."
        )
    return shares


def open_lake(lake: str | Path | None) -> Lake:
    """Return the lake for reading. Raise BadInputError if there is none."""
    uri = str(lake or load_settings().lake_uri or LOCAL_LAKE)
    opened = Lake(uri if "://" in uri else str(Path(uri).expanduser()))
    with reading(opened, opened.uri):
        found = opened.files.get_file_info(f"{opened.root}/{BARS}").type
    if found != fs.FileType.Directory:
        raise BadInputError(
            f"there is no archive at {opened.uri}: it has no folder {BARS}. Give its folder or s3://bucket/prefix as "
            "lake, or in BARFLOW_LAKE_URI."
        )
    return opened


def _threads(lake: Lake) -> int:
    return os.cpu_count() or 1 if on_disk(lake) else S3_THREADS


def _map(function: Callable[[Item], Result], items: list[Item], threads: int) -> list[Result]:
    """Return the results in order. After an error, start no further item."""
    pool = ThreadPoolExecutor(min(threads, len(items)))
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(cancel_futures=True)


def _instruments() -> Instruments:
    return load_instruments(load_settings().instruments_file)


def _symbols(given: str | Iterable[str]) -> tuple[str, ...]:
    return parse_symbols(given if isinstance(given, str) else ",".join(given))


def _days(start: date | str, end: date | str) -> tuple[date, date]:
    first, last = _day(start, "start"), _day(end, "end")
    if last < first:
        raise BadInputError(f"end {last} is before start {first}")
    sessions_between(first, last)
    return first, last


def _day(given: date | str, name: str) -> date:
    try:
        if not isinstance(given, date):
            return date.fromisoformat(given)
        if not isinstance(given, datetime):
            return given
    except (TypeError, ValueError):
        pass
    raise BadInputError(f"{name} {given!r} is not a day. Write it such as 2025-07-02.")
