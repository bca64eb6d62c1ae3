"""Every row and column of the warehouse equals what DuckDB makes of the recorded files, to 1e-9 relative."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, Pipeline, received
from oracle import IBKR, TWELVEDATA, YFINANCE, Oracle, differences, disagreements, held

from barflow.load import TABLES
from local.services import Services
from local.state import State

CSV = "twelvedata_5min/all_symbols_5min_2025-07-02_2025-07-30.csv"
SYMBOLS = ("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA")


@dataclass(frozen=True)
class Replayed:
    """Two demos of the recorded CSV on one state: what each printed and what the stores held after it."""

    oracle: Oracle
    dsn: str
    printed: tuple[dict[str, Any], dict[str, Any]]
    warehouse: tuple[dict[str, Any], dict[str, Any]]
    lake: tuple[dict[str, bytes], dict[str, bytes]]


def demo(*arguments: str) -> dict[str, Any]:
    """Runs `barflow demo` as a user does and returns the object that it prints."""
    command = [str(Path(sys.executable).with_name("barflow")), "demo", "--json", *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


@pytest.fixture(scope="module")
def replayed(real_data: Path, no_settings_from_outside: None) -> Iterator[Replayed]:
    recorded = real_data / CSV
    with tempfile.TemporaryDirectory(prefix="barflow-replay-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "state"
        command = ("--replay", str(recorded), "--state", str(path))
        first = demo(*command)
        with Services(State.open(path), print) as services:
            seen = Pipeline(services.mongodb_uri, "barflow", services.warehouse_dsn, services.lake_uri)
            after_first, lake_first = everything(seen), files(path / "lake")
            second = demo(*command)
            yield Replayed(
                Oracle.of_files(TWELVEDATA, {"": recorded}),
                seen.warehouse_dsn,
                (first, second),
                (after_first, everything(seen)),
                (lake_first, files(path / "lake")),
            )


def everything(pipeline: Pipeline) -> dict[str, Any]:
    return {**pipeline.warehouse(), "load_run": pipeline.rows("ops.load_run")}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_recorded_market_arrives_whole_and_balanced(replayed: Replayed) -> None:
    printed = replayed.printed[0]
    each = {"received": 1500, "stored": 1500, "revised": 0, "unchanged": 0, "rejected": 0, "forming": 0}
    each |= {"parquet_rows": 1500, "bar_30min": 250, "bar_1h": 135, "bar_1d": 20}
    assert printed["symbols"] == dict.fromkeys(SYMBOLS, each)
    assert printed["balanced"] is True
    assert set(printed["seconds"]) == {"ingest", "process", "aggregate"}


@pytest.mark.parametrize("table", TABLES)
def test_the_recorded_market_is_aggregated_as_the_oracle_does(replayed: Replayed, table: str) -> None:
    actual = held(replayed.dsn, table)
    assert len(actual) == {"bar_5min": 7500, "bar_30min": 1250, "bar_1h": 675}.get(table, 100)
    assert differences(actual, replayed.oracle.table(table)) == []


def test_the_hour_of_half_past_eleven_opens_with_its_oldest_bar(replayed: Replayed) -> None:
    """The recording is newest first and starts in the middle of a session: flaws 1 and 7 of earlier systems."""
    hour = held(replayed.dsn, "bar_1h")["AAPL", datetime(2025, 7, 2, 15, 30, tzinfo=UTC)]
    assert (hour["open"], hour["bar_count"], hour["is_complete"]) == (211.49001, 12, True)
    day = held(replayed.dsn, "bar_1d")["AAPL", datetime(2025, 7, 2, 13, 30, tzinfo=UTC)]
    assert (day["open"], day["bar_count"], day["expected_bars"], day["is_complete"]) == (211.49001, 54, 78, False)


def test_a_second_demo_changes_nothing_twice(replayed: Replayed) -> None:
    again = replayed.printed[1]
    assert again["balanced"] is True
    window = {"stored": 0, "revised": 0, "rejected": 0, "received": 234, "unchanged": 234}
    assert all(window.items() <= counts.items() for counts in again["symbols"].values())
    assert replayed.warehouse[1] == replayed.warehouse[0]
    assert replayed.lake[1] == replayed.lake[0]


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
        (surplus,) = oracle.one(
            f"select count(*) from bars anti join bar_5min as b on b.symbol = bars.symbol "
            f"and b.bar_start = timezone('America/New_York', clock) where symbol = '{symbol}'"
        )
        assert reasons == [("outside_session",)] * surplus
    assert disagreements(pipeline.warehouse_dsn, oracle) == {}

    hours = held(pipeline.warehouse_dsn, "bar_1h")
    half_day = [row for (symbol, _), row in sorted(hours.items()) if row["session_date"] == date(2025, 11, 28)]
    assert [row["expected_bars"] for row in half_day] == [12, 12, 12, 6] * 2
    opens = {row["session_date"]: key[1].hour for key, row in held(pipeline.warehouse_dsn, "bar_1d").items()}
    assert [opens[day] for day in (date(2025, 10, 31), date(2025, 11, 3), date(2026, 3, 6), date(2026, 3, 9))] == [
        13,
        14,
        14,
        13,
    ]
    full = [row for row in held(pipeline.warehouse_dsn, "daily_metrics").values() if row["sma_50"] is not None]
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

    hours = held(pipeline.warehouse_dsn, "bar_1h")
    gap = hours["TSLA", datetime(2024, 5, 3, 14, 30, tzinfo=UTC)]
    assert (gap["bar_count"], gap["expected_bars"], gap["is_complete"]) == (11, 12, False)
    incomplete = sum(not row["is_complete"] for row in hours.values())
    assert incomplete == 2 * 2
    idle = held(pipeline.warehouse_dsn, "bar_5min")["AAPL", datetime(2024, 5, 6, 16, 35, tzinfo=UTC)]
    assert (idle["volume"], idle["vwap"], idle["is_complete"]) == (0, None, True)
