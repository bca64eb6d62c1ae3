"""The page's queries on the warehouse: statements with bound parameters, on connections that cannot write."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime

from psycopg import sql
from psycopg.rows import class_row, tuple_row

from barflow.market.sessions import session
from barflow.market.vendor_days import Thresholds, differing
from barflow.settings import MOST_BPS, MOST_VOLUME_PCT
from barflow.warehouse.queries import vendor_days
from dashboard.candles import Candle
from dashboard.connections import Connection, Connections
from dashboard.models import Gap, HopRun, Interval

TABLES: dict[Interval, str] = {"5min": "bar_5min", "30min": "bar_30min", "1h": "bar_1h", "1d": "bar_1d"}

# One index look-up per symbol: the cost grows with the symbols, not with their history.
LOADED = """
    with recursive names as (
        (select symbol from market.bar_1d order by symbol limit 1)
        union all
        select (select b.symbol from market.bar_1d b where b.symbol > names.symbol order by b.symbol limit 1)
        from names where names.symbol is not null
    )
    select n.symbol, d.session_date, d.close, d.volume, m.prev_close, m.sma_20, m.sma_50, m.rsi_14,
        b.bar_start as newest_bar, coalesce(s.spark, '{}') as spark,
        coalesce(s.sessions, '{}') as spark_sessions
    from names n
    join lateral (
        select session_date, close, volume from market.bar_1d where symbol = n.symbol order by bar_start desc limit 1
    ) d on true
    left join lateral (
        select prev_close, sma_20, sma_50, rsi_14 from market.daily_metrics
        where symbol = n.symbol and session_date = d.session_date limit 1
    ) m on true
    left join lateral (
        select bar_start from market.bar_5min where symbol = n.symbol order by bar_start desc limit 1
    ) b on true
    left join lateral (
        select array_agg(close order by bar_start) as spark, array_agg(session_date order by bar_start) as sessions
        from (
            select close, bar_start, session_date from market.bar_30min where symbol = n.symbol
            order by bar_start desc limit 26
        ) newest
    ) s on true
    order by n.symbol"""
CANDLES = """
    select bar_start, open, high, low, close, volume, vwap, is_complete, session_date
    from {} where symbol = %(symbol)s and bar_start < %(before)s order by bar_start desc limit %(limit)s"""
CLOSES = """
    select session_date, close from market.bar_1d where symbol = %s and bar_start = any(%s)"""
GAPS = """
    select symbol, session_date, expected_bars - bar_count as missing, expected_bars as expected
    from market.bar_1d where session_date >= %s and not is_complete order by session_date desc, symbol"""
LOADS = "select count(*) from ops.load_run"
LAST_LOAD = (
    "select load_id, started_at, finished_at, outcome, error from ops.load_run order by finished_at desc limit 1"
)


@dataclass(frozen=True)
class Loaded:
    """A symbol's newest session in the warehouse: prices in dollars, volume in shares, ``newest_bar`` in UTC."""

    symbol: str
    session_date: date
    close: float
    volume: int
    prev_close: float | None
    sma_20: float | None
    sma_50: float | None
    rsi_14: float | None
    newest_bar: datetime | None
    spark: list[float]
    spark_sessions: list[date]


class Warehouse:
    """Queries on one warehouse, safe to call from several threads.

    Every query raises UnavailableError if the warehouse does not answer, BarflowError if its schema is missing.
    """

    def __init__(self, dsn: str, thresholds: Thresholds = (MOST_BPS, MOST_VOLUME_PCT)) -> None:
        """Open the queries. ``thresholds`` are by how much a session may differ from the vendor's daily bar."""
        self._connections, self._thresholds = Connections(dsn), thresholds
        self._loads, self._loaded = -1, dict[str, Loaded]()
        self._loaded_lock = threading.Lock()

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection in autocommit that cannot write, for a block."""
        return self._connections.reading()

    def loaded(self) -> Mapping[str, Loaded]:
        """Return the newest session of every symbol, in order of the symbols.

        The answer is cached until a load is recorded: nothing else changes it.
        """
        with self._connections.reading() as connection, self._loaded_lock:
            (loads,) = connection.execute(LOADS).fetchall()[0]
            if loads != self._loads:
                with connection.cursor(row_factory=class_row(Loaded)) as cursor:
                    self._loaded = {row.symbol: row for row in cursor.execute(LOADED)}
                self._loads = loads
            return self._loaded

    def newest_session(self, symbol: str) -> date | None:
        """Return the newest session that is loaded for a symbol."""
        with self._connections.reading() as connection:
            found = connection.execute("select max(session_date) from market.bar_1d where symbol = %s", [symbol])
            row = found.fetchone()
        return row[0] if row else None

    def candles(self, symbol: str, interval: Interval, before: datetime | None, limit: int) -> list[Candle]:
        """Return the newest candles that open before a moment (UTC), newest first."""
        statement = sql.SQL(CANDLES).format(sql.Identifier("market", TABLES[interval]))
        values = {"symbol": symbol, "before": before or "infinity", "limit": limit}
        with self._connections.reading() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            return [Candle(*row) for row in cursor.execute(statement, values)]

    def closes(self, symbol: str, sessions: Sequence[date]) -> dict[date, float]:
        """Return the raw closes (dollars) of those sessions that are loaded."""
        opens = [found.opens for day in sessions if (found := session(day))]
        with self._connections.reading() as connection:
            return dict(connection.execute(CLOSES, [symbol, opens]).fetchall())

    def gaps(self, since: date) -> list[Gap]:
        """Return the loaded sessions since a day that miss bars, newest first."""
        with self._connections.reading() as connection, connection.cursor(row_factory=class_row(Gap)) as cursor:
            return cursor.execute(GAPS, [since]).fetchall()

    def differing(self, since: date) -> list[str]:
        """Return a line for each session since a day that differs from the vendor's daily bar by more than allowed."""
        with self._connections.reading() as connection:
            compared = vendor_days(connection, self._thresholds, since)
        return differing(compared, self._thresholds)

    def last_load(self) -> HopRun | None:
        """Return the newest load, or None before the first one."""
        with self._connections.reading() as connection:
            row = connection.execute(LAST_LOAD).fetchone()
        return HopRun(**dict(zip(HopRun.model_fields, row, strict=True))) if row else None
