"""The recorded market, run as a person runs it, arrives whole, and every aggregate equals the oracle's to 1e-9."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from commands import Replayed

from barflow.warehouse.load import TABLES
from rehearsal.oracle import TWELVEDATA, Oracle, differences, read_table

SYMBOLS = ("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA")


@pytest.fixture(scope="module")
def oracle(replayed: Replayed) -> Oracle:
    return Oracle.of_files(TWELVEDATA, {"": replayed.recording})


def test_the_recorded_market_arrives_whole_and_balanced(replayed: Replayed) -> None:
    printed = replayed.printed[0]
    each = {"received": 1500, "stored": 1500, "revised": 0, "unchanged": 0, "rejected": 0, "forming": 0}
    each |= {"parquet_rows": 1500, "bar_30min": 250, "bar_1h": 135, "bar_1d": 20}
    assert printed["symbols"] == dict.fromkeys(SYMBOLS, each)
    assert printed["balanced"] is True
    assert set(printed["seconds"]) == {"ingest", "process", "aggregate"}
    assert (printed["state"], printed["lake"]) == (str(replayed.state), str(replayed.state / "lake"))
    assert (replayed.state / "report.html").exists()


@pytest.mark.parametrize("table", TABLES)
def test_the_recorded_market_is_aggregated_as_the_oracle_does(replayed: Replayed, oracle: Oracle, table: str) -> None:
    actual = read_table(replayed.stores.warehouse_dsn, table)
    assert len(actual) == {"bar_5min": 7500, "bar_30min": 1250, "bar_1h": 675}.get(table, 100)
    assert differences(actual, oracle.table(table)) == []


def test_the_hour_of_half_past_eleven_opens_with_its_oldest_bar(replayed: Replayed) -> None:
    """The recording is newest first and starts in the middle of a session: flaws 1 and 7 of earlier systems."""
    hour = read_table(replayed.stores.warehouse_dsn, "bar_1h")["AAPL", datetime(2025, 7, 2, 15, 30, tzinfo=UTC)]
    assert (hour["open"], hour["bar_count"], hour["is_complete"]) == (211.49001, 12, True)
    day = read_table(replayed.stores.warehouse_dsn, "bar_1d")["AAPL", datetime(2025, 7, 2, 13, 30, tzinfo=UTC)]
    assert (day["open"], day["bar_count"], day["expected_bars"], day["is_complete"]) == (211.49001, 54, 78, False)


def test_a_real_jump_is_data(replayed: Replayed) -> None:
    """Flaw 12 of earlier systems: Tesla opened 7.6 % lower on 2025-07-07."""
    metrics = read_table(replayed.stores.warehouse_dsn, "daily_metrics")
    assert round(metrics["TSLA", date(2025, 7, 7)]["gap_open"], 3) == -0.076
    assert round(metrics["TSLA", date(2025, 7, 24)]["gap_open"], 3) == -0.069


def test_a_second_demo_changes_nothing_twice(replayed: Replayed) -> None:
    again = replayed.printed[1]
    assert again["balanced"] is True
    window = {"stored": 0, "revised": 0, "rejected": 0, "received": 234, "unchanged": 234}
    assert all(window.items() <= counts.items() for counts in again["symbols"].values())
    assert replayed.warehouse[1] == replayed.warehouse[0]
    assert replayed.lake[1] == replayed.lake[0]
