"""What the page's tests store, and the server that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
from pymongo.database import Database

from barflow.market.bars import SessionBars
from barflow.market.instruments import Instruments
from barflow.market.sessions import BAR, last_sessions
from barflow.staging.connection import Document
from barflow.staging.sessions import Staging
from dashboard.app import create_app
from dashboard.server import serving

# Thursday, July 17, 2025, 11:00 New York: the newest session has 18 closed bars.
NOW = datetime(2025, 7, 17, 15, 0, tzinfo=UTC)
TOKEN = "token-of-the-page-tests"


@contextmanager
def serve(
    database: Database[Document],
    dsn: str,
    token: str | None = None,
    url: str | None = None,
    proxies: Sequence[str] = (),
    fault: Callable[[], None] | None = None,
    instruments: Instruments | None = None,
) -> Iterator[str]:
    """Serve the page on two stores at NOW, and yield its URL once it has read them. The path /fault calls ``fault``."""
    app = create_app(database, dsn, instruments=instruments, token=token, url=url, clock=lambda: NOW, poll_seconds=0.05)
    if fault:
        app.add_api_route("/fault", fault, include_in_schema=False)
    with serving(app, "127.0.0.1", 0, url=url, proxies=proxies) as server:
        assert app.state.live.wait(20)
        yield server.url.rstrip("/")


def session_bars(symbol: str, back: int = 0, until: datetime = NOW, price: float = 100.0) -> SessionBars:
    """Return the bars of a session, ``back`` sessions before NOW's, that closed by ``until``.

    The first one closes at ``price``, each later one a cent higher.
    """
    traded = last_sessions(NOW, back + 1)[0]
    ts = [slot for slot in traded.slots if slot + BAR <= until]
    closes = [price + at / 100 for at in range(len(ts))]
    highs, lows = [close + 1 for close in closes], [close - 1 for close in closes]
    volumes = [1000 + at for at in range(len(ts))]
    return SessionBars(symbol, traded.session_date, ts, closes, highs, lows, [*closes], volumes, [0] * len(ts))


def stage(database: Database[Document], *sessions: SessionBars) -> None:
    """Store sessions in MongoDB."""
    staging = Staging(database)
    staging.ensure()
    staging.save([(bars, datetime.now(UTC)) for bars in sessions], "test-run")


def load(dsn: str, symbol: str, sessions: int, price: float = 90.0) -> None:
    """Insert one daily row for each of the sessions before the newest one."""
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
    """Insert the row that records a finished load."""
    row = "insert into ops.load_run (load_id, started_at, finished_at, outcome) values (%s, %s, %s, 'loaded')"
    with psycopg.connect(dsn) as connection:
        connection.execute(row, [load_id, finished_at, finished_at])
