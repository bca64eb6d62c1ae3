"""What do the tests of the page put into its stores, and when is it?"""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
from pymongo.database import Database

from barflow.market.bars import SessionBars
from barflow.market.sessions import BAR, last_sessions
from barflow.staging.connection import Document
from barflow.staging.sessions import Staging

# Thursday, July 17, 2025, 11:00 New York: the newest session has 18 closed bars.
NOW = datetime(2025, 7, 17, 15, 0, tzinfo=UTC)
TOKEN = "a-token-of-the-tests-alone"


def session_bars(symbol: str, back: int = 0, until: datetime = NOW, price: float = 100.0) -> SessionBars:
    """The bars of the session ``back`` sessions ago that had closed by ``until``; the nth closes n cents higher."""
    traded = last_sessions(NOW, back + 1)[0]
    ts = [slot for slot in traded.slots if slot + BAR <= until]
    closes = [price + at / 100 for at in range(len(ts))]
    highs, lows = [close + 1 for close in closes], [close - 1 for close in closes]
    volumes = [1000 + at for at in range(len(ts))]
    return SessionBars(symbol, traded.session_date, ts, closes, highs, lows, [*closes], volumes, [0] * len(ts))


def stage(database: Database[Document], *sessions: SessionBars) -> None:
    staging = Staging(database)
    staging.ensure()
    staging.save([(bars, datetime.now(UTC)) for bars in sessions], "test-run")


def load(dsn: str, symbol: str, sessions: int, price: float = 90.0) -> None:
    """One daily row for each of the sessions before the newest one."""
    insert = (
        "insert into market.bar_1d (symbol, bar_start, session_date, open, high, low, close, volume, vwap, bar_count, "
        "expected_bars, load_id) values (%s, %s, %s, %s, %s, %s, %s, 5000, %s, %s, %s, 'test')"
    )
    with psycopg.connect(dsn) as connection:
        for traded in last_sessions(NOW, sessions + 1)[:-1]:
            bars = traded.expected_bars
            row = [price, price + 1, price - 1, price, price, bars, bars]
            connection.execute(insert, [symbol, traded.opens, traded.session_date, *row])


def record_load(dsn: str, load_id: str, finished_at: str = "2025-07-17T15:00Z") -> None:
    """The row by which a load says that it is done."""
    row = "insert into ops.load_run (load_id, started_at, finished_at, outcome) values (%s, %s, %s, 'loaded')"
    with psycopg.connect(dsn) as connection:
        connection.execute(row, [load_id, finished_at, finished_at])
