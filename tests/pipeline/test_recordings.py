"""Long and untidy recordings arrive as DuckDB makes of their files: every row and column, to 1e-9 relative."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

from harness import Pipeline, received

from rehearsal.oracle import IBKR, YFINANCE, Oracle, disagreements, read_table


def test_ten_months_in_two_loads_equal_the_oracle(pipeline: Pipeline, real_data: Path) -> None:
    """210 sessions with half days, both changes of daylight saving time, and bars outside the session.

    The second load finds the windows' past in the warehouse.
    """
    recordings = {symbol: real_data / f"ibkr_5min/{symbol}_5min.csv" for symbol in ("AAPL", "NVDA")}
    checked = {symbol: received(symbol, file) for symbol, file in recordings.items()}
    sessions = [bars for item in checked.values() for bars in item.sessions.values()]
    for part in (
        [bars for bars in sessions if bars.session_date <= date(2025, 12, 10)],
        [bars for bars in sessions if bars.session_date > date(2025, 12, 10)],
    ):
        pipeline.stage(part)
        pipeline.process()
        pipeline.aggregate()
    oracle = Oracle.of_files(IBKR, recordings)

    refused = {symbol: [item.reasons for item in found.rejected] for symbol, found in checked.items()}
    for symbol, reasons in refused.items():
        (surplus,) = oracle.fetch_row(
            f"select count(*) from bars anti join bar_5min as b on b.symbol = bars.symbol "
            f"and b.bar_start = timezone('America/New_York', clock) where symbol = '{symbol}'"
        )
        assert reasons == [("outside_session",)] * surplus
    assert disagreements(pipeline.warehouse_dsn, oracle) == {}

    hours = read_table(pipeline.warehouse_dsn, "bar_1h")
    half_day = [row for (symbol, _), row in sorted(hours.items()) if row["session_date"] == date(2025, 11, 28)]
    assert [row["expected_bars"] for row in half_day] == [12, 12, 12, 6] * 2
    opens = {row["session_date"]: key[1].hour for key, row in read_table(pipeline.warehouse_dsn, "bar_1d").items()}
    assert [opens[day] for day in (date(2025, 10, 31), date(2025, 11, 3), date(2026, 3, 6), date(2026, 3, 9))] == [
        13,
        14,
        14,
        13,
    ]
    full = [row for row in read_table(pipeline.warehouse_dsn, "daily_metrics").values() if row["sma_50"] is not None]
    assert len(full) == 2 * (210 - 49)


def test_gaps_and_idle_bars_equal_the_oracle(pipeline: Pipeline, real_data: Path) -> None:
    """A bar is missing on two days, and one of AAPL traded nothing."""
    recordings = {symbol: real_data / f"yfinance_5min/{symbol}_5min.csv" for symbol in ("AAPL", "TSLA")}
    for symbol, file in recordings.items():
        checked = received(symbol, file)
        assert checked.rejected == []
        pipeline.stage(checked.sessions.values())
    pipeline.process()
    pipeline.aggregate()
    oracle = Oracle.of_files(YFINANCE, recordings)
    assert disagreements(pipeline.warehouse_dsn, oracle) == {}

    hours = read_table(pipeline.warehouse_dsn, "bar_1h")
    gap = hours["TSLA", datetime(2024, 5, 3, 14, 30, tzinfo=UTC)]
    assert (gap["bar_count"], gap["expected_bars"], gap["is_complete"]) == (11, 12, False)
    incomplete = sum(not row["is_complete"] for row in hours.values())
    assert incomplete == 2 * 2
    idle = read_table(pipeline.warehouse_dsn, "bar_5min")["AAPL", datetime(2024, 5, 6, 16, 35, tzinfo=UTC)]
    assert (idle["volume"], idle["vwap"], idle["is_complete"]) == (0, None, True)
