"""Long recordings with gaps and revisions: every loaded row and column equals DuckDB's result, to 1e-9."""

from __future__ import annotations

from datetime import UTC, date, datetime

from harness import Pipeline, received
from recordings import Recordings

from rehearsal.oracle import IBKR, YFINANCE, Oracle, disagreements, read_table


def test_months_in_two_loads_with_revisions_equal_the_oracle(pipeline: Pipeline, recordings: Recordings) -> None:
    """The months have half days, both changes of daylight saving time, and bars outside the session.

    The second load reads earlier sessions for its windows from the warehouse, and replaces revised and late bars.
    """
    symbols = ("AAPL", "NVDA")
    files = {symbol: recordings.long[symbol] for symbol in symbols}
    before = {symbol: received(symbol, recordings.long_as_first_seen[symbol]).sessions for symbol in symbols}
    checked = {symbol: received(symbol, file) for symbol, file in files.items()}
    first = [bars for found in before.values() for bars in found.values() if bars.session_date <= date(2025, 12, 10)]
    then = [bars for found in checked.values() for bars in found.sessions.values() if bars not in first]
    for part in (first, then):
        pipeline.stage(part)
        pipeline.process()
        pipeline.aggregate()
    oracle = Oracle.of_files(IBKR, files)

    rejected = {symbol: [item.reasons for item in found.rejected] for symbol, found in checked.items()}
    for symbol, reasons in rejected.items():
        (surplus,) = oracle.fetch_row(
            f"select count(*) from bars anti join bar_5min as b on b.symbol = bars.symbol "
            f"and b.bar_start = timezone('America/New_York', clock) where symbol = '{symbol}'"
        )
        assert surplus > 0
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
    (sessions,) = oracle.fetch_row("select count(distinct session_date) from bar_1d")
    assert len(full) == 2 * (sessions - 49) > 0


def test_gaps_and_idle_bars_equal_the_oracle(pipeline: Pipeline, recordings: Recordings) -> None:
    """A bar is missing on each of two days, and one bar of AAPL has no volume."""
    files = {symbol: recordings.with_gaps[symbol] for symbol in ("AAPL", "TSLA")}
    for symbol, file in files.items():
        checked = received(symbol, file)
        assert checked.rejected == []
        pipeline.stage(checked.sessions.values())
    pipeline.process()
    pipeline.aggregate()
    oracle = Oracle.of_files(YFINANCE, files)
    assert disagreements(pipeline.warehouse_dsn, oracle) == {}

    hours = read_table(pipeline.warehouse_dsn, "bar_1h")
    gap = hours["TSLA", datetime(2024, 5, 3, 14, 30, tzinfo=UTC)]
    assert (gap["bar_count"], gap["expected_bars"], gap["is_complete"]) == (11, 12, False)
    incomplete = sum(not row["is_complete"] for row in hours.values())
    assert incomplete == 2 * 2
    idle = read_table(pipeline.warehouse_dsn, "bar_5min")["AAPL", datetime(2024, 5, 6, 16, 35, tzinfo=UTC)]
    assert (idle["volume"], idle["vwap"], idle["is_complete"]) == (0, None, True)
