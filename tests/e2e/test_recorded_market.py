"""A replayed recording arrives completely, and every aggregate equals the oracle's to 1e-9."""

from __future__ import annotations

import pytest
from commands import Replayed
from recordings.reading import as_utc, in_session, overnight_gaps, rows_by_symbol, wall_clock

from barflow.warehouse.load import TABLES
from rehearsal.oracle import Oracle, differences, read_table


def test_every_recorded_bar_is_stored_or_rejected_and_every_hop_holds_it(replayed: Replayed, oracle: Oracle) -> None:
    printed = replayed.printed[0]

    def counted(table: str, symbol: str) -> int:
        (count,) = oracle.fetch_row(f"select count(*) from {table} where symbol = '{symbol}'")
        return int(count)

    for symbol in rows_by_symbol(replayed.recording):
        received, stored = counted("bars", symbol), counted("bar_5min", symbol)
        expected = {"received": received, "stored": stored, "revised": 0, "unchanged": 0}
        expected |= {"rejected": received - stored, "forming": 0, "parquet_rows": stored}
        expected |= {name: counted(name, symbol) for name in ("bar_30min", "bar_1h", "bar_1d")}
        assert printed["symbols"][symbol] == expected, symbol
    assert printed["symbols"].keys() == rows_by_symbol(replayed.recording).keys()
    assert printed["balanced"] is True
    assert set(printed["seconds"]) == {"ingest", "process", "aggregate"}
    assert (printed["state"], printed["lake"]) == (str(replayed.state), str(replayed.state / "lake"))
    assert (replayed.state / "report.html").exists()


def test_exactly_the_bars_outside_the_session_are_in_quarantine(replayed: Replayed) -> None:
    """A bar that the second demo received and rejected again is one document."""
    surplus = {
        (symbol, f"{as_utc(wall_clock(row)):%Y-%m-%d %H:%M:%S}", row["close"])
        for symbol, rows in rows_by_symbol(replayed.recording).items()
        for row in rows
        if not in_session(row)
    }
    rejected = [*replayed.stores.database["rejected_bars"].find()]
    assert len(rejected) == len(surplus)
    assert {(item["symbol"], item["payload"]["datetime"], item["payload"]["close"]) for item in rejected} == surplus
    assert {reason for item in rejected for reason in item["reasons"]} == ({"outside_session"} if surplus else set())


@pytest.mark.parametrize("table", TABLES)
def test_a_recording_is_aggregated_as_the_oracle_does(replayed: Replayed, oracle: Oracle, table: str) -> None:
    actual = read_table(replayed.stores.warehouse_dsn, table)
    assert len(actual) == oracle.fetch_row(f"select count(*) from {table}")[0] > 0
    assert differences(actual, oracle.table(table)) == []


def test_the_hour_in_which_a_recording_starts_opens_with_its_oldest_bar(replayed: Replayed) -> None:
    """The recording is newest first and starts in the middle of a session: flaws 1 and 7 of earlier systems."""
    rows = rows_by_symbol(replayed.recording)["AAPL"]
    oldest = rows[-1]
    clock = wall_clock(oldest)
    assert wall_clock(rows[0]) > clock
    bars_of_day = sum(wall_clock(row).date() == clock.date() for row in rows)
    assert 0 < bars_of_day < 78

    hour = read_table(replayed.stores.warehouse_dsn, "bar_1h")["AAPL", as_utc(clock)]
    assert (hour["open"], hour["bar_count"], hour["is_complete"]) == (float(oldest["open"]), 12, True)
    day = read_table(replayed.stores.warehouse_dsn, "bar_1d")["AAPL", as_utc(clock.replace(hour=9, minute=30))]
    assert (day["open"], day["bar_count"]) == (float(oldest["open"]), bars_of_day)
    assert (day["expected_bars"], day["is_complete"]) == (78, False)


def test_a_real_jump_is_data(replayed: Replayed) -> None:
    """Flaw 12 of earlier systems: a fall of more than 5 % overnight is stored and measured, never rejected."""
    gaps = overnight_gaps(replayed.recording)
    assert min(gaps.values()) < -7
    metrics = read_table(replayed.stores.warehouse_dsn, "daily_metrics")
    measured = {key: row["gap_open"] * 100 for key, row in metrics.items() if abs(row["gap_open"] or 0) > 0.05}
    assert measured == pytest.approx(gaps)


def test_a_second_demo_changes_nothing_twice(replayed: Replayed) -> None:
    again = replayed.printed[1]
    assert again["balanced"] is True
    for symbol, counts in again["symbols"].items():
        first = replayed.printed[0]["symbols"][symbol]
        assert counts == {**first, "stored": 0, "unchanged": first["stored"]}, symbol
    assert replayed.warehouse[1] == replayed.warehouse[0]
    assert replayed.lake[1] == replayed.lake[0]
