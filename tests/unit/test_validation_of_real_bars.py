"""Recorded bars of two other vendors: validation refuses exactly those that the exchange's hours leave out.

The counts come from DuckDB, which reads the same files in New York's wall time and knows three half days; validation
reads them in UTC over both changes of the clock.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from barflow.market.sessions import NEW_YORK
from barflow.market.validation import Validated, validate

NOW = datetime(2026, 11, 1, tzinfo=UTC)
FIELDS = ("datetime", "open", "high", "low", "close", "volume")
IN_SESSION = """
    t >= time '09:30' and t < case when d in (date '2025-07-03', date '2025-11-28', date '2025-12-24')
    then time '13:00' else time '16:00' end
"""


def validated(path: Path, symbol: str, columns: dict[str, str]) -> Validated:
    """A file's rows as the vendor would send them: newest first, in UTC."""
    with path.open() as lines:
        rows = [{name: row[column] for name, column in columns.items()} for row in csv.DictReader(lines)]
    for row in rows:
        row["datetime"] = f"{local(row['datetime']).astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return validate(symbol, {"symbol": symbol}, rows[::-1], NOW)


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


def oracle(path: Path, stamp: str, query: str) -> list[Any]:
    """The rows of a query over the file, with its wall time as d (date) and t (time)."""
    source = f"""(select *, "{stamp}"::timestamp::date as d, "{stamp}"::timestamp::time as t
                 from read_csv('{path}', header=true))"""
    return duckdb.sql(query.format(source=source)).fetchall()


@pytest.mark.parametrize(
    ("symbol", "rows", "outside", "after_half_days"),
    [
        ("AAPL", 16400, 193, 0),
        ("GOOG", 16375, 167, 1),
        ("MSFT", 16524, 316, 1),
        ("TSLA", 16776, 568, 0),
        ("NVDA", 16989, 776, 5),
    ],
)
def test_bars_outside_the_session_are_refused_over_half_days_and_both_clock_changes(
    real_data: Path, symbol: str, rows: int, outside: int, after_half_days: int
) -> None:
    path = real_data / "ibkr_5min" / f"{symbol}_5min.csv"
    result = validated(path, symbol, dict(zip(FIELDS, FIELDS, strict=True)))
    assert (result.received, len(result.rejected)) == (rows, outside + after_half_days)
    assert {item.reasons for item in result.rejected} == {("outside_session",)}
    query = f"select d, count(*), sum(volume)::bigint from {{source}} where {IN_SESSION} group by d order by d"
    sessions = [(day, len(bars), sum(bars.volume)) for day, bars in sorted(result.sessions.items())]
    assert sessions == oracle(path, "datetime", query)
    assert len(sessions) == 210
    opens = {day: bars.ts[0].astimezone(NEW_YORK).strftime("%H:%M") for day, bars in result.sessions.items()}
    assert set(opens.values()) == {"09:30"}


@pytest.mark.parametrize("symbol", ["AAPL", "GOOG", "MSFT", "TSLA"])
def test_gaps_stay_gaps_and_a_bar_without_trades_is_a_bar(real_data: Path, symbol: str) -> None:
    path = real_data / "yfinance_5min" / f"{symbol}_5min.csv"
    columns = dict(zip(FIELDS, ("Date Time", "Open", "High", "Low", "Close", "Volume"), strict=True))
    result = validated(path, symbol, columns)
    assert (result.received, result.accepted, result.rejected) == (1480, 1480, [])
    per_session = oracle(path, "Date Time", "select d, count(*) from {source} group by d order by d")
    assert [(day, len(bars)) for day, bars in sorted(result.sessions.items())] == per_session
    assert sorted(count for _, count in per_session) == [77, 77] + [78] * 17
    closes = oracle(path, "Date Time", 'select list("Close" order by d, t) from {source}')[0][0]
    assert [close for _, bars in sorted(result.sessions.items()) for close in bars.close] == closes
    silent = oracle(path, "Date Time", 'select count(*) from {source} where "Volume" = 0')[0][0]
    assert sum(volume == 0 for bars in result.sessions.values() for volume in bars.volume) == silent
    assert silent == (symbol == "AAPL")


def test_every_recorded_bar_of_the_vendor_passes_and_the_real_jumps_are_flagged(real_data: Path) -> None:
    path = real_data / "twelvedata_5min" / "all_symbols_5min_2025-07-02_2025-07-30.csv"
    with path.open() as lines:
        rows = [*csv.DictReader(lines)]
    notes: dict[str, list[str]] = {}
    for symbol in ("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA"):
        values = [
            {**row, "datetime": f"{local(row['datetime']).astimezone(UTC):%Y-%m-%d %H:%M:%S}"}
            for row in rows
            if row["symbol"] == symbol
        ]
        result = validate(symbol, {"symbol": symbol}, values, NOW)
        assert (result.accepted, result.rejected) == (1500, [])
        notes[symbol] = result.notes
    assert notes.pop("TSLA") == [
        "price_jump: -7.57% at 2025-07-07 13:30 UTC",
        "price_jump: -6.89% at 2025-07-24 13:30 UTC",
    ]
    assert not any(notes.values())
