"""Bars of longer intervals, made of a share's 5-minute bars. Pure.

Intraday buckets count from the session's open, as in the warehouse: the last one of a session may be shorter. A week
runs from Monday to Sunday.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date, timedelta
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from barflow.errors import BarflowError
from barflow.market.bars import PRICES
from barflow.market.sessions import BAR, Session, session, sessions_between

Interval = Literal["5min", "15min", "30min", "1h", "1d", "1w"]
INTERVALS: tuple[Interval, ...] = get_args(Interval)
# The 5-minute bars of a full intraday bucket.
SLOTS: dict[Interval, int] = {"15min": 3, "30min": 6, "1h": 12}
MICROSECONDS = 1_000_000
Array = np.ndarray[Any, Any]


def interval_schema(volume: pa.DataType) -> pa.Schema:
    """Return the columns of bars of a longer interval. ``volume`` is a double where it is adjusted."""
    moment, day = pa.timestamp("us", tz="UTC"), pa.date32()
    fields = [
        *(pa.field("ts", moment, nullable=False), pa.field("session_date", day, nullable=False)),
        *(pa.field(name, pa.float64(), nullable=False) for name in PRICES),
        pa.field("volume", volume, nullable=False),
        pa.field("vwap", pa.float64()),
        *(pa.field(name, pa.int32(), nullable=False) for name in ("bar_count", "expected_bars")),
        pa.field("is_complete", pa.bool_(), nullable=False),
        pa.field("known_from", moment, nullable=False),
    ]
    return pa.schema(fields)


def needed(columns: Collection[str]) -> set[str]:
    """Return the columns of the 5-minute bars that these columns of a longer interval are made of."""
    of_volume = {"high", "low", "close", "volume"} if "vwap" in columns else set()
    return of_volume.union(columns) - {"vwap", "bar_count", "expected_bars", "is_complete"}


def in_buckets(bars: pa.Table, interval: Interval, schema: pa.Schema) -> pa.Table:
    """Return the bars of an interval, made of one share's 5-minute bars that are sorted by ts.

    ``schema`` has some or all columns of ``interval_schema``: ts (open of the bucket, UTC), session_date (of a week,
    its first session), open, high, low, close (dollars), volume (shares), vwap (dollars, null without volume),
    bar_count and expected_bars (5-minute bars), is_complete, known_from (UTC, of the newest bar in it). Raises
    BarflowError for a bar outside the calendar.
    """
    if not bars:
        return schema.empty_table()
    starts, days, expected = _buckets(bars, interval)
    first = np.flatnonzero(np.r_[True, starts[1:] != starts[:-1]])
    counts = np.diff(np.r_[first, len(starts)])
    last = first + counts - 1
    made: dict[str, Callable[[], Array | pa.Array]] = {
        "ts": lambda: starts[first],
        "session_date": lambda: days[first],
        "open": lambda: _values(bars, "open")[first],
        "high": lambda: np.maximum.reduceat(_values(bars, "high"), first),
        "low": lambda: np.minimum.reduceat(_values(bars, "low"), first),
        "close": lambda: _values(bars, "close")[last],
        "volume": lambda: np.add.reduceat(_values(bars, "volume"), first),
        "vwap": lambda: _vwap(bars, first),
        "bar_count": lambda: counts,
        "expected_bars": lambda: expected[first],
        "is_complete": lambda: counts == expected[first],
        "known_from": lambda: np.maximum.reduceat(_values(bars, "known_from"), first),
    }
    return pa.table([pa.array(made[item.name]()).cast(item.type) for item in schema], schema)


def _buckets(bars: pa.Table, interval: Interval) -> tuple[Array, Array, Array]:
    """Return for each bar the open of its bucket (microseconds UTC), the bucket's session, and its expected bars."""
    encoded = pc.dictionary_encode(bars["session_date"].combine_chunks())
    place = encoded.indices.to_numpy()
    traded = [_session(day) for day in encoded.dictionary.to_pylist()]
    if interval == "1w":
        weeks = [_week(item.session_date) for item in traded]
        days = [week[0] for week in weeks]
        expected = np.array([sum(item.expected_bars for item in week) for week in weeks])
    else:
        days = traded
        expected = np.array([item.expected_bars for item in traded])
    opens = np.array([int(item.opens.timestamp()) * MICROSECONDS for item in days])[place]
    dates, expected = np.array([item.session_date for item in days], "datetime64[D]")[place], expected[place]
    if slots := SLOTS.get(interval):
        width = slots * int(BAR.total_seconds()) * MICROSECONDS
        number = (_values(bars, "ts") - opens) // width
        return opens + number * width, dates, np.minimum(slots, expected - slots * number)
    return opens, dates, expected


def _session(day: date) -> Session:
    found = session(day)
    if found is None:
        raise BarflowError(f"the archive has bars of {day}, on which the exchange was closed. Nothing was read.")
    return found


def _week(day: date) -> list[Session]:
    monday = day - timedelta(days=day.weekday())
    return sessions_between(monday, monday + timedelta(days=6))


def _vwap(bars: pa.Table, first: Array) -> pa.Array:
    typical = (_values(bars, "high") + _values(bars, "low") + _values(bars, "close")) / 3
    traded = _values(bars, "volume")
    shares = np.add.reduceat(traded, first)
    dollars = np.add.reduceat(typical * traded, first)
    return pa.array(np.divide(dollars, shares, out=np.zeros(len(shares)), where=shares > 0), mask=shares == 0)


def _values(bars: pa.Table, name: str) -> Array:
    """Return a column, times as microseconds since the epoch."""
    column = bars[name]
    found: Array = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_numpy()
    return found
