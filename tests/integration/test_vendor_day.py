"""`barflow status`, a run's summary and the page name each session that differs from Twelve Data's daily bar."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pymongo.database import Database

from barflow.cli.main import main
from barflow.market.sessions import sessions_between
from barflow.operations.run_messages import summary_text
from barflow.operations.run_summary import summarize
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.staging.connection import Document
from dashboard.queries import Warehouse

Mongo = Database[Document]
Command = Callable[..., tuple[int, str]]
DAYS = [date(2026, 11, 24), date(2026, 11, 25)]
OURS = {"open": 120.0, "high": 126.0, "low": 119.0, "close": 123.4, "volume": 1_000_000}


@pytest.fixture
def days(warehouse_dsn: str) -> Callable[..., None]:
    """Return the function that stores one session: our daily bar, and Twelve Data's with some other values."""

    def store(symbol: str, day: date, *, bars: int = 78, **theirs: float) -> None:
        vendor = {**OURS, **theirs}
        with psycopg.connect(warehouse_dsn) as connection:
            connection.execute(
                "insert into market.bar_1d (symbol, bar_start, session_date, open, high, low, close, volume, vwap, "
                "bar_count, expected_bars, load_id) values (%s, %s, %s, %s, %s, %s, %s, %s, 120, %s, 78, 'test')",
                [symbol, f"{day}T14:30Z", day, *OURS.values(), bars],
            )
            connection.execute(
                "insert into ops.vendor_bar values (%s, %s, %s, %s, %s, %s, %s, now(), 'test')",
                [symbol, day, *(vendor[name] for name in OURS)],
            )

    return store


@pytest.fixture
def status(
    database: Mongo,
    mongodb_uri: str,
    warehouse_dsn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Return the function that runs `barflow status ARGUMENTS` in this process: its exit code and output."""
    settings = {
        "BARFLOW_MONGODB_URI": mongodb_uri,
        "BARFLOW_MONGODB_DATABASE": database.name,
        "BARFLOW_WAREHOUSE_DSN": warehouse_dsn,
        "BARFLOW_LAKE_URI": str(tmp_path),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["barflow", "status", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    return run


def of(found: dict[str, Any], symbol: str) -> dict[str, Any]:
    return {name: found["symbols"][symbol][name] for name in ("vendor_day", "differing")}


def test_a_wrong_day_is_named_and_exits_1(
    days: Callable[..., None], status: Command, warehouse_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hops hold nothing else, so that the reconciliation is not what fails.
    monkeypatch.setattr("barflow.pipeline.reconciliation.compare", lambda *hops, **more: symbols())
    for day in DAYS:
        days("AAPL", day, close=123.41, volume=1_200_000)
    code, _ = status()
    assert code == 0
    days("GOOGL", DAYS[0])
    days("GOOGL", DAYS[1], close=124.9)
    days("TSLA", DAYS[0], high=100.0, volume=100_000, bars=77)  # a gap of ours is reported as a gap
    days("TSLA", DAYS[1], volume=3_000_000)
    code, out = status("--json")
    found = json.loads(out)
    assert (code, found["differing"], found["broken"]) == (1, True, False)
    assert of(found, "AAPL") == {
        "vendor_day": {"session_date": "2026-11-25", "worst": "close", "worst_bps": -0.81, "volume_pct": -16.67},
        "differing": [],
    }
    said = "2026-11-25: close differs by 120 bps from Twelve Data's daily bar: ours 123.4, theirs 124.9"
    assert found["symbols"]["GOOGL"]["differing"] == [said]
    assert found["symbols"]["TSLA"]["differing"] == [
        "2026-11-25: volume differs by 67 % from Twelve Data's daily bar: ours 1000000, theirs 3000000"
    ]
    code, out = status()
    assert code == 1
    assert f"GOOGL {said}" in " ".join(out.split())
    assert "a session differs from Twelve Data's daily bar" in " ".join(out.split())
    monkeypatch.setenv("BARFLOW_VENDOR_DAY_BPS", "130")
    monkeypatch.setenv("BARFLOW_VENDOR_DAY_VOLUME_PCT", "70")
    assert status()[0] == 0
    # A difference that Twelve Data never corrects ends with its session, also of a symbol that has no newer ones.
    monkeypatch.delenv("BARFLOW_VENDOR_DAY_BPS")
    later = [item.session_date for item in sessions_between(date(2026, 11, 26), date(2026, 12, 31))[:20]]
    for day in later[:-1]:
        days("AAPL", day)
    assert status()[0] == 1
    days("AAPL", later[-1])
    assert status()[0] == 0


def symbols() -> dict[str, Any]:
    from barflow.pipeline.status import SymbolStatus

    return {symbol: SymbolStatus(symbol) for symbol in ("AAPL", "GOOGL", "TSLA")}


def test_the_summary_of_a_run_and_the_page_name_it(
    days: Callable[..., None], status: Command, database: Mongo, warehouse_dsn: str
) -> None:
    stores = Stores(load_settings())
    stores.database = database
    days("AAPL", DAYS[0])
    done = summarize(stores, "20261125T214500Z-process-000000", 60)
    assert done.differing == []
    assert "differs" not in summary_text(done)
    for symbol in "ABCDEF":
        days(symbol, DAYS[1], low=118.0)
    text = summary_text(summarize(stores, "20261125T214500Z-process-000000", 60))
    last = text.splitlines()[-1]
    assert last.startswith(
        ":warning: B 2026-11-25: low differs by 85 bps from Twelve Data's daily bar: ours 119, theirs 118; "
    )
    assert last.endswith("; and 1 more. `barflow status` shows all")
    with closing(Warehouse(warehouse_dsn)) as page:
        assert len(page.differing(DAYS[0])) == 6
        assert page.differing(date(2026, 11, 26)) == []
    with closing(Warehouse(warehouse_dsn, (90.0, 90.0))) as page:
        assert page.differing(DAYS[0]) == []
