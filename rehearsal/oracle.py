"""The oracle: the warehouse's tables computed by DuckDB from the source bars, without any logic of the package.

Times are New York wall-clock times, sessions come from exchange_calendars, windows are joins over the session's number,
and the formulas have their textbook forms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import exchange_calendars
import psycopg
import pyarrow as pa

from barflow.market.bars import SessionBars

RELATIVE = 1e-9
WIDTHS = {"bar_5min": 5, "bar_30min": 30, "bar_1h": 60, "bar_1d": 24 * 60}
# Each reads a file of a recording as symbol, clock (New York wall-clock time), open, high, low, close, volume.
TWELVEDATA = "select symbol, datetime, open, high, low, close, volume from {file}"
IBKR = "select '{symbol}', datetime, open, high, low, close, volume from {file}"
YFINANCE = """select '{symbol}', "Date Time", "Open", "High", "Low", "Close", "Volume" from {file}"""

BARS = """
select
    symbol,
    timezone('America/New_York', start) as bar_start,
    day as session_date,
    arg_min(open, clock) as open,
    max(high) as high,
    min(low) as low,
    arg_max(close, clock) as close,
    cast(sum(volume) as bigint) as volume,
    sum(volume * (high + low + close) / 3) / nullif(sum(volume), 0) as vwap,
    count(*) as bar_count,
    least({width}, datediff('minute', start, any_value(closes))) // 5 as expected_bars,
    count(*) = least({width}, datediff('minute', start, any_value(closes))) // 5 as is_complete
from (
    select *, opens + to_minutes({width} * (datediff('minute', opens, clock) // {width})) as start
    from bars join sessions on day = cast(clock as date) and clock >= opens and clock < closes
)
group by symbol, start, day
"""
METRICS = """
with numbered as (
    select *, row_number() over (partition by symbol order by session_date) as n from bar_1d
),
based as (
    select d.symbol, d.n, w.n as before, coalesce((
        select product(s.ratio) from splits s
        where s.symbol = d.symbol and s.ex_date > w.session_date and s.ex_date <= d.session_date
    ), 1) as ratio
    from numbered d join numbered w on w.symbol = d.symbol and w.n between d.n - 50 and d.n
),
stepped as (
    select * exclude (prev), prev as prev_close, ln(close) - ln(prev) as step, close - prev as change,
        greatest(high - low, abs(high - prev), abs(low - prev)) as true_range
    from (
        select d.*, p.close / b.ratio as prev from numbered d
        left join numbered p on p.symbol = d.symbol and p.n = d.n - 1
        left join based b on b.symbol = d.symbol and b.n = d.n and b.before = d.n - 1
    )
),
ticks as (
    select symbol, session_date, close, row_number() over (partition by symbol, session_date order by bar_start) as k
    from bar_5min
),
within_session as (
    select a.symbol, a.session_date, sqrt(sum(pow(ln(b.close) - ln(a.close), 2))) as realized_vol
    from ticks a join ticks b on a.symbol = b.symbol and a.session_date = b.session_date and b.k = a.k + 1
    group by all
),
windowed as (
    select d.symbol, d.n,
        avg(w.close / b.ratio) filter (d.n - w.n < 5) as sma_5,
        avg(w.close / b.ratio) filter (d.n - w.n < 20) as sma_20,
        avg(w.close / b.ratio) as sma_50,
        stddev_samp(w.step) filter (d.n - w.n < 20) * sqrt(252) as volatility_20,
        sum(w.change / b.ratio) filter (d.n - w.n < 14 and w.change > 0) as gains,
        -sum(w.change / b.ratio) filter (d.n - w.n < 14 and w.change < 0) as losses,
        avg(w.true_range / b.ratio) filter (d.n - w.n < 14) as atr_14,
        avg(w.volume * b.ratio) filter (d.n - w.n between 1 and 20) as mean_volume
    from stepped d join stepped w on w.symbol = d.symbol and w.n between d.n - 49 and d.n
    join based b on b.symbol = d.symbol and b.n = d.n and b.before = w.n
    group by all
)
select
    symbol,
    session_date,
    close,
    prev_close,
    (close - prev_close) / prev_close as return_1d,
    (open - prev_close) / prev_close as gap_open,
    (high - low) / close as range_pct,
    realized_vol,
    case when n >= 5 then sma_5 end as sma_5,
    case when n >= 20 then sma_20 end as sma_20,
    case when n >= 50 then sma_50 end as sma_50,
    case when n >= 21 then volatility_20 end as volatility_20,
    case
        when n < 15 then null
        when gains is null and losses is null then 50
        when losses is null then 100
        else 100 - 100 / (1 + coalesce(gains, 0) / losses)
    end as rsi_14,
    case when n >= 15 then atr_14 end as atr_14,
    case when n >= 21 then volume / nullif(mean_volume, 0) end as volume_ratio_20
from stepped
join windowed using (symbol, n)
left join within_session using (symbol, session_date)
"""
Table = dict[tuple[Any, ...], dict[str, Any]]


class Oracle:
    """The tables that belong to the bars of recorded files, or of sessions that a test generates."""

    def __init__(self) -> None:
        self.db = duckdb.connect()
        self.db.execute("set timezone = 'UTC'")
        self.db.execute(
            "create table bars (symbol text, clock timestamp, open double, high double, low double, close double, "
            "volume bigint)"
        )
        self.db.execute("create table splits (symbol text, ex_date date, ratio double)")

    @classmethod
    def of_files(cls, form: str, files: Mapping[str, Path]) -> Oracle:
        """Return the oracle of recorded files: ``of_files(IBKR, {"AAPL": file})``.

        If the files of a form contain the symbol, pass one file under any key.
        """
        oracle = cls()
        for symbol, file in files.items():
            oracle.db.execute("insert into bars " + form.format(symbol=symbol, file=f"read_csv('{file}')"))
        return oracle._compute()

    @classmethod
    def of_sessions(cls, sessions: Iterable[SessionBars], splits: Iterable[tuple[str, date, float]] = ()) -> Oracle:
        """Return the oracle of generated sessions, and of splits as (symbol, ex-date, ratio)."""
        oracle = cls()
        for split in splits:
            oracle.db.execute("insert into splits values (?, ?, ?)", split)
        for bars in sessions:
            columns = {name: getattr(bars, name) for name in ("ts", "open", "high", "low", "close", "volume")}
            oracle.db.register("given", pa.table({"symbol": [bars.symbol] * len(bars), **columns}))
            oracle.db.execute("insert into bars select * replace (timezone('America/New_York', ts) as ts) from given")
        return oracle._compute()

    def _compute(self) -> Oracle:
        self.db.execute("create table sessions (day date, opens timestamp, closes timestamp)")
        span = self.fetch_row("select min(clock)::date, max(clock)::date from bars")
        self.db.executemany("insert into sessions values (?, ?, ?)", _sessions(*span))
        for name, width in WIDTHS.items():
            self.db.execute(f"create table {name} as {BARS.format(width=width)}")
        self.db.execute(f"create table daily_metrics as {METRICS}")
        return self

    def fetch_row(self, query: str) -> tuple[Any, ...]:
        """Return the only row of a query."""
        found = self.db.execute(query).fetchone()
        assert found is not None
        return found

    def table(self, name: str) -> Table:
        """Return every row of a table by its key."""
        cursor = self.db.execute(f"select * from {name}")
        return by_key([column[0] for column in cursor.description], cursor.fetchall())


def _sessions(first: date, last: date) -> list[tuple[Any, ...]]:
    """Return the exchange's sessions: date, open and close in New York wall-clock time."""
    schedule = exchange_calendars.get_calendar("XNYS", start=first, end=last + timedelta(days=7)).schedule
    local = [schedule[name].dt.tz_convert("America/New_York").dt.tz_localize(None) for name in ("open", "close")]
    return [
        (day.date(), opens.to_pydatetime(), closes.to_pydatetime())
        for day, opens, closes in zip(schedule.index, *local, strict=True)
    ]


def disagreements(dsn: str, oracle: Oracle) -> dict[str, list[str]]:
    """Return where each table of the warehouse differs from the oracle's; empty if none does."""
    found = {name: differences(read_table(dsn, name), oracle.table(name)) for name in (*WIDTHS, "daily_metrics")}
    return {name: differing for name, differing in found.items() if differing}


def read_table(dsn: str, name: str) -> Table:
    """Return every row of a warehouse table by its key, without the column load_id."""
    with psycopg.connect(dsn, options="-c timezone=UTC") as connection:
        cursor = connection.execute(f"select * from market.{name}")
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        rows = by_key(names, cursor.fetchall())
    for row in rows.values():
        del row["load_id"]
    return rows


def by_key(names: list[str], rows: Iterable[tuple[Any, ...]]) -> Table:
    """Return rows by their key, which is their first two columns."""
    return {row[:2]: dict(zip(names, row, strict=True)) for row in rows}


def differences(actual: Table, expected: Table) -> list[str]:
    """Return where two tables differ: missing and surplus rows, columns, and values that differ by over RELATIVE."""
    found = [f"missing {key}" for key in expected.keys() - actual.keys()]
    found += [f"surplus {key}" for key in actual.keys() - expected.keys()]
    for key in expected.keys() & actual.keys():
        row, wanted = actual[key], expected[key]
        if row.keys() != wanted.keys():
            return [f"columns {sorted(row)} are not {sorted(wanted)}"]
        found += [
            f"{key} {name}: {row[name]!r} is not {wanted[name]!r}"
            for name in wanted
            if not _is_same(row[name], wanted[name])
        ]
    return sorted(found)


def _is_same(value: Any, wanted: Any) -> bool:
    if isinstance(value, float) and isinstance(wanted, float | int):
        return math.isclose(value, wanted, rel_tol=RELATIVE, abs_tol=0.0)
    return bool(value == wanted)
