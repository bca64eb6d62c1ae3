"""The rows that the report's tests insert into the warehouse."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from barflow.market.sessions import last_sessions, new_york
from barflow.pipeline.status import SymbolStatus
from local.report.chart import Candle

# Thursday, after the close. The 20 sessions up to it include a half day (July 3).
NOW = datetime(2025, 7, 17, 20, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOSTILE = """<img src=x onerror="alert(1)">&'</script>"""
METRICS: dict[str, Any] = {
    "close": 211.25,
    "prev_close": 210.0000049,
    "return_1d": -0.012345678901234567,
    "gap_open": 0.00991,
    "range_pct": 0.0234,
    "realized_vol": 0.011,
    "sma_5": 1234.567,
    "sma_20": 209.5,
    "sma_50": None,
    "volatility_20": None,
    "rsi_14": 54.321,
    "atr_14": 0.98765,
    "volume_ratio_20": 1.234,
}


def hourly(symbol: str, sessions: int, price: float) -> list[Candle]:
    """Return hourly bars up to NOW that rise and fall. They count from each session's open."""
    made: list[Candle] = []
    for traded in last_sessions(NOW, sessions):
        start = traded.opens
        while start < traded.closes:
            count = len(made)
            opened = price * (1 + 0.02 * math.sin(count / 9))
            closed = price * (1 + 0.02 * math.sin((count + 1) / 9)) + (0.7 if count % 4 == 0 else -0.3)
            high, low = max(opened, closed) + 0.4 + count % 3, min(opened, closed) - 0.2 - count % 2
            expected = min(HOUR, traded.closes - start) // timedelta(minutes=5)
            day = new_york(start).date()
            made.append(Candle(symbol, start, day, opened, high, low, closed, 1000 + 37 * count, expected, expected))
            start += HOUR
    return made


def insert(dsn: str, candles: list[Candle], metrics: dict[str, Any] | None = None) -> None:
    """Insert hourly bars and, for their last session, a row of metrics."""
    with psycopg.connect(dsn) as connection:
        bar = "insert into market.bar_1h ({}, load_id) values ({}, 'test')"
        names = list(vars(candles[0]))
        query = bar.format(", ".join(names), ", ".join(f"%({name})s" for name in names))
        connection.cursor().executemany(query, [vars(candle) for candle in candles])
        if metrics:
            row = {"symbol": candles[-1].symbol, "session_date": candles[-1].session_date, **metrics}
            connection.execute(
                f"insert into market.daily_metrics ({', '.join(row)}, load_id) "
                f"values ({', '.join(f'%({name})s' for name in row)}, 'test')",
                row,
            )


def status(symbol: str, candles: list[Candle], **changes: Any) -> SymbolStatus:
    """Return the status of a symbol whose bars are all at every hop."""
    bars = sum(candle.bar_count for candle in candles)
    days: set[date] = {candle.session_date for candle in candles}
    newest = candles[-1].bar_start
    held = {"staged": bars, "parquet": bars, "warehouse": bars, "sessions": len(days), "newest_warehouse": newest}
    return SymbolStatus(symbol, **(held | changes))


def outcome(counts: dict[str, dict[str, int]], *, balanced: bool = True) -> dict[str, Any]:
    """Return the part of `barflow demo --json` that the report reads."""
    names = ("received", "stored", "revised", "unchanged", "rejected", "forming")
    symbols = {symbol: dict.fromkeys(names, 0) | found for symbol, found in counts.items()}
    return {"symbols": symbols, "balanced": balanced, "seconds": {"ingest": 1.25, "process": 12.0, "aggregate": 9.96}}
