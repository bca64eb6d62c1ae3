"""A year of five symbols with splits, dividends and a rename, and DuckDB's own adjustment of it.

The market is a walk on one share basis. Its raw bars are in the shares of their own session, so they have a cliff at
each true split.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import duckdb
import pyarrow as pa

from barflow.market.actions import Action, Dividend, Split
from barflow.market.bars import SessionBars
from barflow.market.sessions import sessions_between

FIRST, LAST = date(2025, 1, 2), date(2025, 12, 31)
SESSIONS = sessions_between(FIRST, LAST)
BARS_A_DAY = 3
FORMER, PRESENT, LAST_DAY_OF_FORMER = "FB", "META", date(2025, 6, 6)
# What happened: new shares for one old share.
SPLITS = {
    ("NVDA", date(2025, 6, 10)): 10.0,
    ("GE", date(2025, 4, 2)): 1.281,  # a spin-off
    ("GE", date(2025, 8, 4)): 0.125,
    ("TSLA", date(2025, 10, 6)): 3.0,
}
AMOUNT_PER_DIVIDEND = {
    date(2025, 2, 10): 0.25,
    date(2025, 5, 12): 0.26,
    date(2025, 8, 11): 0.26,
    date(2025, 11, 10): 0.3,
}
SYMBOLS = ("AAPL", "GE", PRESENT, "NVDA", "TSLA")
NEVER = date.max


@dataclass(frozen=True)
class Learned:
    """An action that the vendor shows from the evening of ``shown`` to that of ``withdrawn``."""

    symbol: str
    ex_date: date
    value: float
    shown: date
    withdrawn: date = NEVER
    is_split: bool = True


# On time, changed before its ex-date, late, and withdrawn. Each true action ends up right.
VENDOR = [
    Learned("NVDA", date(2025, 6, 10), 10.0, shown=date(2025, 6, 2)),
    Learned("GE", date(2025, 4, 2), 1.281, shown=date(2025, 3, 28)),
    Learned("GE", date(2025, 8, 4), 0.1, shown=date(2025, 7, 21), withdrawn=date(2025, 7, 30)),
    Learned("GE", date(2025, 8, 4), 0.125, shown=date(2025, 7, 30)),
    Learned("TSLA", date(2025, 8, 25), 3.0, shown=date(2025, 8, 11), withdrawn=date(2025, 8, 22)),
    Learned("TSLA", date(2025, 10, 6), 3.0, shown=date(2025, 10, 20)),
    *(
        Learned("AAPL", day, amount, shown=day if day.month != 8 else date(2025, 8, 28), is_split=False)
        for day, amount in AMOUNT_PER_DIVIDEND.items()
    ),
]


def known(symbol: str, is_split: bool, by: date) -> list[Action]:
    """Return the actions of one kind that the vendor shows on the evening of a day."""
    at = datetime.combine(by, time(21), UTC)
    shown = [
        item
        for item in VENDOR
        if (item.symbol, item.is_split) == (symbol, is_split) and item.shown <= by < item.withdrawn
    ]
    if is_split:
        return [Split(symbol, item.ex_date, item.value, "endpoint", at) for item in shown]
    return [Dividend(symbol, item.ex_date, item.value, "USD", "endpoint", at) for item in shown]


def stored_name(symbol: str, day: date) -> str:
    """Return the name under which the vendor sent a symbol's bars of a day."""
    return FORMER if symbol == PRESENT and day <= LAST_DAY_OF_FORMER else symbol


def market() -> list[SessionBars]:
    """Return every session, with the name that its symbol had. Between two sessions, prices move by at most 2 %."""
    return [bars for symbol in SYMBOLS for bars in _walk(symbol)]


def _walk(symbol: str) -> Iterable[SessionBars]:
    dice = random.Random(f"a scripted year of {symbol}")
    price, shares = dice.uniform(80, 200), dice.uniform(5e5, 5e6)
    for traded in SESSIONS:
        day = traded.session_date
        later = math.prod(ratio for (name, ex_date), ratio in SPLITS.items() if name == symbol and ex_date > day)
        bars = SessionBars(stored_name(symbol, day), day)
        price *= dice.uniform(0.98, 1.02)
        for ts in traded.slots[:BARS_A_DAY]:
            opened, price = price, price * dice.uniform(0.995, 1.005)
            bars.ts.append(ts)
            bars.open.append(opened * later)
            bars.close.append(price * later)
            bars.high.append(max(opened, price) * dice.uniform(1, 1.002) * later)
            bars.low.append(min(opened, price) * dice.uniform(0.998, 1) * later)
            bars.volume.append(round(shares * dice.uniform(0.7, 1.3) / later))
            bars.revision.append(0)
        yield bars


SCALE = """
create or replace table scale as
with effects as (
    select symbol, ex_date, coalesce(product(value) filter (is_split), 1) as ratio,
        coalesce(sum(value) filter (not is_split), 0) as paid
    from actions where ex_date <= (select max(session_date) from days d where d.symbol = actions.symbol) group by all
), factors as (
    select e.*, 1 - paid * ratio / (
        select close from days d where d.symbol = e.symbol and d.session_date < e.ex_date
        order by d.session_date desc limit 1
    ) as dividend
    from effects e
)
select d.symbol, d.session_date, coalesce(product(f.ratio), 1) as split, coalesce(product(f.dividend), 1) as dividend
from days d left join factors f on f.symbol = d.symbol and f.ex_date > d.session_date
group by all
"""
ADJUSTED = """
select symbol, bar_start,
    open / split as open, high / split as high, low / split as low, close / split as close, volume * split as volume,
    open / split * dividend as open_all, high / split * dividend as high_all, low / split * dividend as low_all,
    close / split * dividend as close_all
from {table} join scale using (symbol, session_date)
"""
# Each row's window on the basis of its own session.
METRICS = """
with days as (
    select symbol, session_date, arg_min(open, bar_start) as open, max(high) as high, min(low) as low,
        arg_max(close, bar_start) as close, sum(volume) as volume,
        row_number() over (partition by symbol order by session_date) as n
    from bars group by symbol, session_date
), pairs as (
    select d.symbol, d.session_date, d.n, d.open as own_open, d.volume as own_volume, w.n as k,
        w.high / f.split as high, w.low / f.split as low, w.close / f.split as close, w.volume * f.split as volume
    from days d
    join days w on w.symbol = d.symbol and w.n between d.n - 50 and d.n
    join lateral (
        select coalesce(product(value), 1) as split from actions a
        where a.is_split and a.symbol = d.symbol and a.ex_date > w.session_date and a.ex_date <= d.session_date
    ) f on true
), steps as (
    select *, lag(close) over (partition by symbol, n order by k) as before from pairs
)
select symbol, session_date,
    any_value(before) filter (k = n) as prev_close,
    any_value(close / before - 1) filter (k = n) as return_1d,
    any_value(own_open / before - 1) filter (k = n) as gap_open,
    case when n >= 5 then avg(close) filter (n - k < 5) end as sma_5,
    case when n >= 20 then avg(close) filter (n - k < 20) end as sma_20,
    case when n >= 50 then avg(close) filter (n - k < 50) end as sma_50,
    case when n >= 21 then stddev_samp(ln(close) - ln(before)) filter (n - k < 20) * sqrt(252) end as volatility_20,
    case when n >= 15 then 100 * sum(greatest(close - before, 0)) filter (n - k < 14)
        / sum(abs(close - before)) filter (n - k < 14) end as rsi_14,
    case when n >= 15 then avg(greatest(high - low, abs(high - before), abs(low - before))) filter (n - k < 14) end
        as atr_14,
    case when n >= 21 then any_value(own_volume) / avg(volume) filter (n - k between 1 and 20) end as volume_ratio_20
from steps group by symbol, session_date, n
"""


class YearOracle:
    """The adjusted bars and the daily metrics of some sessions and actions, by DuckDB alone.

    Sessions of the former symbol count as those of the present one.
    """

    def __init__(self, sessions: Iterable[SessionBars], actions: Sequence[Learned]) -> None:
        self.db = duckdb.connect()
        self.db.execute("set timezone = 'UTC'")
        columns = ("open", "high", "low", "close", "volume")
        rows: dict[str, list[Any]] = {name: [] for name in ("symbol", "session_date", "bar_start", *columns)}
        for bars in sessions:
            rows["symbol"] += [PRESENT if bars.symbol == FORMER else bars.symbol] * len(bars)
            rows["session_date"] += [bars.session_date] * len(bars)
            rows["bar_start"] += bars.ts
            for name in columns:
                rows[name] += getattr(bars, name)
        self.db.register("given", pa.table(rows))
        self.db.execute("create table bars as select * from given")
        self.db.execute(
            "create table days as select symbol, session_date, min(bar_start) as bar_start, "
            "arg_min(open, bar_start) as open, max(high) as high, min(low) as low, arg_max(close, bar_start) as close, "
            "sum(volume) as volume from bars group by all"
        )
        self.db.execute("create table actions (symbol text, ex_date date, value double, is_split boolean)")
        if actions:
            found = [(item.symbol, item.ex_date, item.value, item.is_split) for item in actions]
            self.db.executemany("insert into actions values (?, ?, ?, ?)", found)
        self.db.execute(SCALE)

    def adjusted(self, table: str) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Return the adjusted rows of ``bars`` or ``days`` by symbol and start."""
        return self._rows(ADJUSTED.format(table=table))

    def metrics(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Return the daily metrics by symbol and session."""
        return self._rows(METRICS)

    def _rows(self, query: str) -> dict[tuple[Any, ...], dict[str, Any]]:
        cursor = self.db.execute(query)
        names = [column[0] for column in cursor.description]
        return {row[:2]: dict(zip(names[2:], row[2:], strict=True)) for row in cursor.fetchall()}
