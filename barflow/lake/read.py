"""The public Python API: bars, symbols, corporate actions and sessions of the Parquet archive.

Its names, arguments, columns and their types follow semantic versioning. It reads the files of the archive alone: it
needs no database and no API key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from barflow.errors import BadInputError
from barflow.lake.actions import SCHEMA, action_row, find_actions, symbols_with_actions
from barflow.lake.bar_files import BARS, reading, symbols_of
from barflow.lake.intervals import Interval
from barflow.lake.partitions import Lake
from barflow.lake.query import SYMBOL, Query, read_shares
from barflow.market.actions import Adjust
from barflow.market.instruments import Instruments, load_instruments
from barflow.market.sessions import parse_moment, sessions_between
from barflow.settings import load_settings
from barflow.symbol import parse_symbols

# The lake of the state folder that the commands use without settings.
LOCAL_LAKE = Path(".barflow/lake")
MOMENT = pa.timestamp("us", tz="UTC")
SESSIONS = pa.schema(
    [
        pa.field("session_date", pa.date32(), nullable=False),
        pa.field("opens", MOMENT, nullable=False),
        pa.field("closes", MOMENT, nullable=False),
        pa.field("expected_bars", pa.int32(), nullable=False),
    ]
)


def read(
    symbols: str | Iterable[str],
    start: date | str,
    end: date | str,
    *,
    interval: Interval = "5min",
    adjust: Adjust = "splits",
    as_of: datetime | str | None = None,
    columns: Iterable[str] | None = None,
    lake: str | Path | None = None,
) -> pa.Table:
    """Return bars of the archive as an Arrow table, sorted by symbol and ts.

    Bars of 5 minutes have the columns symbol, ts (the bar's open, UTC), session_date (New York), open, high, low, close
    (dollars), volume (shares), revision (how often the source had changed the bar) and known_from (UTC: when the answer
    that brought it was asked for). Those of longer intervals have vwap (dollars, null without volume), bar_count,
    expected_bars (5-minute bars) and is_complete instead of revision, and the known_from of their newest bar. They
    count from the session's open. A week has the session_date and the open of its first session, and the
    expected_bars of all its sessions. ``volume`` is an int64 with adjust ``none`` and a double otherwise.

    A renamed share is one series under its present symbol. Sessions without bars have no rows: if the archive has
    bars of a symbol but none in the range, the table has no rows of it.

    Args:
        symbols: One symbol or several, present or former.
        start: The first session (New York): a date, or text such as ``2025-07-02``.
        end: The last session, included.
        interval: ``5min``, ``15min``, ``30min``, ``1h``, ``1d`` or ``1w``.
        adjust: ``splits`` (prices and volume in the shares of today, or of the day of ``as_of``), ``all`` (prices
            adjusted for dividends, too) or ``none`` (as stored). ``splits`` does not change a symbol without
            known splits.
        as_of: Read the bars, and the actions that adjust them, that were known at this moment: an aware datetime, or
            text with an offset such as ``2026-11-24T15:00Z``. None: all that is known.
        columns: Only these columns, in this order. Other columns are not read. None: all.
        lake: The archive: a folder or ``s3://bucket/prefix``. None: BARFLOW_LAKE_URI, or else ``.barflow/lake``.

    Raises:
        BadInputError: An argument is wrong, there is no archive, it has no bars of a symbol at all, or ``all`` is
            given and the dividends of a symbol were never fetched.
        BarflowError: A file is damaged, or a dividend cannot be applied.
        UnavailableError: S3 does not answer. It is a BarflowError.
    """
    query = Query(
        _day(start, "start"),
        _day(end, "end"),
        interval,
        adjust,
        _moment(as_of),
        None
        if columns is None
        else _texts(columns, "columns", "one column or several, such as close or ['ts', 'close']"),
    )
    names = _symbols(symbols)
    return read_shares(open_lake(lake), _instruments(), names, query)


def symbols(*, lake: str | Path | None = None) -> list[str]:
    """Return the present symbols of the shares that the archive has bars of, sorted.

    ``lake`` and the errors are those of ``read``.
    """
    stored = symbols_of(open_lake(lake))
    return sorted(_instruments().resolve(stored)[0])


def actions(
    symbols: str | Iterable[str] | None = None,
    *,
    as_of: datetime | str | None = None,
    lake: str | Path | None = None,
) -> pa.Table:
    """Return the splits and dividends of the archive as an Arrow table, sorted by symbol and ex_date.

    Columns: symbol, kind (``split`` or ``dividend``), ex_date (New York), ratio (of a split: new shares for an old
    one), amount (of a dividend, dollars per share), currency, source (``endpoint``, ``derived`` or ``file``),
    known_from and known_until (UTC). known_until is null for a version that is still current. A symbol without actions
    has no rows.

    Args:
        symbols: One symbol or several, present or former. None: all.
        as_of: The versions that were known at this moment, as in ``read``. None: the current ones.
        lake: The archive, as in ``read``.

    Raises:
        BadInputError: An argument is wrong, or there is no archive.
        BarflowError: A file is damaged, or S3 does not answer.
    """
    moment, names = _moment(as_of), None if symbols is None else _symbols(symbols)
    archive = open_lake(lake)
    present = symbols_with_actions(archive) if names is None else sorted(_instruments().resolve(names)[0])
    rows = [
        {SYMBOL.name: name, **action_row(version)}
        for name in present
        for version in find_actions(archive, name).known_at(moment)
    ]
    return pa.Table.from_pylist(rows, pa.schema([SYMBOL, *SCHEMA]))


def sessions(start: date | str, end: date | str) -> pa.Table:
    """Return the exchange's sessions from ``start`` to ``end``, both included, as an Arrow table.

    Columns: session_date (New York), opens and closes (UTC), expected_bars (of 5 minutes: 78, or 42 on a half day).
    Raises BadInputError for a wrong day, or one outside the years of the exchange calendar.
    """
    first, last = _day(start, "start"), _day(end, "end")
    if last < first:
        raise BadInputError(f"end {last} is before start {first}.")
    rows = [{name: getattr(found, name) for name in SESSIONS.names} for found in sessions_between(first, last)]
    return pa.Table.from_pylist(rows, SESSIONS)


def open_lake(lake: str | Path | None) -> Lake:
    """Return an archive for reading. Raise BadInputError if there is none."""
    uri = str(lake or load_settings().lake_uri or LOCAL_LAKE)
    opened = Lake(uri if "://" in uri else os.path.expanduser(uri))  # noqa: PTH111 - it leaves an unknown ~user alone
    with reading(opened, opened.uri):
        found = opened.files.get_file_info(f"{opened.root}/{BARS}").type
    if found != fs.FileType.Directory:
        raise BadInputError(
            f"there is no archive at {opened.uri}: it has no folder {BARS}. Set BARFLOW_LAKE_URI or the argument lake "
            "to its folder or s3://bucket/prefix, or run `barflow demo` to make one."
        )
    return opened


def _instruments() -> Instruments:
    return load_instruments(load_settings().instruments_file)


def _symbols(given: str | Iterable[str]) -> tuple[str, ...]:
    expected = "one symbol or several, such as AAPL or ['AAPL', 'MSFT']"
    text = ",".join(_texts(given, "symbols", expected))
    if not text.strip(" ,"):
        raise BadInputError(f"symbols must be {expected}.")
    return parse_symbols(text)


def _texts(given: str | Iterable[str], name: str, expected: str) -> tuple[str, ...]:
    texts = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(text, str) for text in texts):
        raise BadInputError(f"{name} must be {expected}.")
    return texts


def _moment(given: datetime | str | None) -> datetime | None:
    return None if given is None else parse_moment(given)


def _day(given: date | str, name: str) -> date:
    try:
        if not isinstance(given, date):
            return date.fromisoformat(given)
        if not isinstance(given, datetime):
            return given
    except (TypeError, ValueError):
        pass
    raise BadInputError(f"{name} {given!r} is not a day. Write it such as 2025-07-02.")
