"""The page: the time of each endpoint, with a year of many symbols in the warehouse."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from statistics import median, quantiles
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv
import requests

from barflow.alerts.message import Message
from barflow.alerts.outbox import OUTBOX_CHANNEL, Outbox
from barflow.market.actions import Dividend, Split
from barflow.market.bars import BAR_TABLES
from barflow.market.sessions import Session, utc_now
from barflow.staging.actions import Actions, Answer
from benchmarks.figures import Chapter, Figure
from benchmarks.processes import call
from benchmarks.seed import LAST_CLOSE, seed_sessions, sessions, walk
from benchmarks.stores import Bench, Pipeline
from dashboard.app import create_app
from dashboard.server import serving

SYMBOLS, DAYS, STAGED_DAYS, ALERTS = 500, 252, 3, 5000
SPLITS, DIVIDENDS = 3, 60  # a split every 150 sessions, a dividend every 63 of the last 15 years
EVERY = timedelta(minutes=20)  # the time between alerts: they reach back 70 days
LIMIT_MS = 50.0
PAGE = 600  # the candles that a chart loads first
SLOTS = {"bar_5min": 1, "bar_30min": 6, "bar_1h": 12, "bar_1d": 78}
MEANING = f"""
PostgreSQL holds {SYMBOLS} symbols with a year of 5-minute bars ({DAYS} sessions) and their aggregates. MongoDB holds
the newest {STAGED_DAYS} sessions, {ALERTS:,} alerts, and for each symbol {SPLITS} splits and {DIVIDENDS} dividends, of
which four dividends and a split are within the year. Candles are adjusted for splits, unless their row says otherwise.
A client in another process sends the page's requests over HTTP, one after the other, for symbols in random order.
Answers are gzipped and read completely. The limit for each endpoint is {LIMIT_MS:.0f} ms at the 99th percentile.
"""
METRICS = """
insert into market.daily_metrics (symbol, session_date, close, prev_close, return_1d, sma_20, sma_50, rsi_14, load_id)
select symbol, session_date, close, lag(close) over w, close / lag(close) over w - 1,
    avg(close) over (w rows 19 preceding), avg(close) over (w rows 49 preceding), 50, 'benchmark'
from market.bar_1d window w as (partition by symbol order by session_date)"""


def measure(bench: Bench) -> Chapter:
    """Measure each endpoint of the page."""
    names = bench.symbols(SYMBOLS)
    pipeline = bench.pipeline("page")
    bench.log(f"page: filling the warehouse with {DAYS} sessions of {len(names)} symbols")
    rows = fill_warehouse(pipeline, names)
    seed_sessions(pipeline.database, names, STAGED_DAYS)
    fill_outbox(pipeline, names, ALERTS)
    fill_actions(pipeline, names)
    bench.log(f"page: {rows:,} rows are loaded; sending requests")
    taken = answered(pipeline, names, bench.repeats(300))
    figures = [
        Figure(f"page: {name}, p99", times["p99"], "ms", against="the limit", theirs=LIMIT_MS, target=1)
        for name, times in taken.items()
    ]
    notes = [f"{name}: p50 {times['p50']:.1f} ms, {times['kilobytes']:.0f} kB" for name, times in taken.items()]
    return Chapter("The page", MEANING, figures, [f"{rows:,} rows in the warehouse", *notes])


def answered(
    pipeline: Pipeline, names: Sequence[str], rounds: int, only: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Serve the page of a pipeline. Return the milliseconds of each endpoint, or of some, seen from another process."""
    app = create_app(pipeline.database, pipeline.dsn, clock=lambda: LAST_CLOSE)
    with serving(app, "127.0.0.1", 0) as server:
        app.state.live.wait(60)
        return call("dashboard:ask", url=server.url, names=list(names), rounds=rounds, only=only).result


def ask(url: str, names: list[str], rounds: int, only: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each endpoint, or of some, and the size of its compressed answer."""
    dice = random.Random(1)
    with requests.Session() as client:
        oldest = client.get(f"{url}api/bars/{names[0]}?limit=2000").json()["time"][0]
        endpoints = {
            "watch-list": "api/watchlist",
            **{
                f"candles of {interval}": f"api/bars/{{symbol}}?interval={interval}&limit={PAGE}"
                for interval in ("5min", "30min", "1h", "1d")
            },
            "candles as stored": f"api/bars/{{symbol}}?limit={PAGE}&adjust=none",
            "candles of 1d adjusted for dividends": f"api/bars/{{symbol}}?interval=1d&limit={PAGE}&adjust=all",
            "the largest page of candles": "api/bars/{symbol}?limit=2000",
            "earlier candles": f"api/bars/{{symbol}}?before={oldest}&limit={PAGE}",
            "alerts": "api/alerts",
            "alerts of a symbol": "api/alerts?symbol={symbol}",
            "health": "api/health",
        }
        return {
            name: _timed(client, url, path, names, dice, rounds)
            for name, path in endpoints.items()
            if name in (only or endpoints)
        }


def _timed(
    client: requests.Session,
    url: str,
    path: str,
    names: Sequence[str],
    dice: random.Random,
    rounds: int,
) -> dict[str, float]:
    taken, size = [], 0
    for turn in range(-3, rounds):  # turns before 0 open the connections
        asked = url + path.format(symbol=dice.choice(names))
        begun = time.perf_counter()
        answer = client.get(asked, stream=True)
        body = answer.raw.read(decode_content=False)
        if turn >= 0:
            taken.append(1000 * (time.perf_counter() - begun))
        answer.raise_for_status()
        size = len(body)
    p99 = quantiles(taken, n=100)[98] if len(taken) > 1 else taken[0]
    return {"p50": median(taken), "p99": p99, "kilobytes": size / 1000}


def fill_warehouse(pipeline: Pipeline, names: Sequence[str]) -> int:
    """Fill every bar table with a year of bars by COPY, and compute daily metrics. Return the number of rows."""
    found = sessions(DAYS)
    with psycopg.connect(pipeline.dsn) as connection:
        cursor = connection.cursor()
        for table in BAR_TABLES:
            buckets = Buckets(found, SLOTS[table])
            columns = ", ".join(buckets.columns)
            with cursor.copy(f"copy market.{table} ({columns}) from stdin (format csv)".encode()) as copy:
                for name in names:
                    copy.write(buckets.csv(name))
        cursor.execute(METRICS)
        rows = sum(
            cursor.execute(f"select count(*) from market.{table}".encode()).fetchall()[0][0] for table in BAR_TABLES
        )
    with psycopg.connect(pipeline.dsn, autocommit=True) as connection:
        connection.execute("vacuum analyze")  # as autovacuum does after daily loads
    return int(rows)


class Buckets:
    """The rows of one bar table, symbol by symbol. ``slots`` is the number of 5-minute bars in a bucket."""

    columns = (
        *("symbol", "bar_start", "session_date", "open", "high", "low", "close", "volume"),
        *("vwap", "bar_count", "expected_bars", "load_id"),
    )

    def __init__(self, found: Sequence[Session], slots: int) -> None:
        opens = [(session, at) for session in found for at in range(0, session.expected_bars, slots)]
        counts = [min(slots, session.expected_bars - at) for session, at in opens]
        self._firsts = np.cumsum([0, *counts[:-1]])
        self._lasts = self._firsts + np.array(counts) - 1
        self._fixed = {
            "bar_start": pa.array([session.slots[at] for session, at in opens], pa.timestamp("s", "UTC")),
            "session_date": pa.array([session.session_date for session, _ in opens]),
            "bar_count": pa.array(counts, pa.int16()),
        }
        self._bars = sum(counts)

    def csv(self, name: str) -> bytes:
        """Return the symbol's rows as CSV."""
        bars, count = walk(name, self._bars), len(self._firsts)
        same = {"symbol": pa.repeat(name, count), "load_id": pa.repeat("benchmark", count)}
        close = bars["close"][self._lasts]
        made = {
            "open": bars["open"][self._firsts],
            "high": np.maximum.reduceat(bars["high"], self._firsts),
            "low": np.minimum.reduceat(bars["low"], self._firsts),
            "close": close,
            "volume": np.add.reduceat(bars["volume"], self._firsts),
            "vwap": close,
            "expected_bars": self._fixed["bar_count"],
        }
        rows = pa.table({**self._fixed, **same, **made}).select(self.columns)
        out = io.BytesIO()
        pyarrow.csv.write_csv(rows, out, pyarrow.csv.WriteOptions(include_header=False))
        return out.getvalue()


def fill_actions(pipeline: Pipeline, names: Sequence[str]) -> None:
    """Stage the splits and dividends of every symbol, as a refresh does."""
    actions, learned = Actions(pipeline.database), utc_now() - timedelta(days=1)
    actions.ensure()
    newest_first = [item.session_date for item in sessions(63 * DIVIDENDS)[::-1]]
    for name in names:
        split = [Split(name, newest_first[150 * n + 100], 2.0, "endpoint", learned) for n in range(SPLITS)]
        paid = [Dividend(name, day, 0.01, "USD", "endpoint", learned) for day in newest_first[30::63]]
        actions.store(
            [
                Answer(name, "split", split, "endpoint", learned, learned),
                Answer(name, "dividend", paid, "endpoint", learned, learned),
            ]
        )


def fill_outbox(pipeline: Pipeline, names: Sequence[str], count: int) -> None:
    """Add ``count`` delivered alerts to the outbox, the newest one now."""
    outbox = Outbox(pipeline.database)
    outbox.ensure()
    outbox.add((message, [OUTBOX_CHANNEL]) for message in _messages(names, count))


def _messages(names: Sequence[str], count: int) -> Iterator[Message]:
    slots = [(session.session_date, slot) for session in sessions(20) for slot in session.slots]
    noticed = utc_now()
    for number in range(count):
        symbol, (day, slot) = names[number % len(names)], slots[-1 - number * 7 % len(slots)]
        values: dict[str, Any] = {
            "direction": "up",
            "value": 3.1,
            "unit": "percent",
            "reference": 100.0,
            "price": 103.1,
        }
        yield Message(
            schema_version=1,
            id=f"move_{number}|{symbol}|{slot:%Y-%m-%dT%H:%M:%SZ}",
            rule=f"move_{number}",
            kind="move",
            symbol=symbol,
            severity="info",
            session_date=day,
            bar_start=slot,
            text=f"{symbol} moved up by 3.1 % within 30 minutes, to 103.10",
            created_at=noticed - number * EVERY,
            **values,
        )
