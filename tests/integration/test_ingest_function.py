"""Ingest function: when it ticks, what it returns and logs, and which failures it raises for Lambda to retry."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from harness import program
from pymongo.database import Database
from ticks import expected, stored, utc
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS, MARKET, limit

from barflow.errors import UnavailableError
from barflow.market.sessions import utc_now
from barflow.pipeline.stores import Stores
from barflow.staging.connection import Document
from emulators.twelvedata.server import TwelveDataEmulator
from local.starting import free_port

HANDLER = Path(__file__).parents[2] / "lambda" / "ingest" / "handler.py"
HISTORY = 3
NO_ALERT = {"AlertsFired": 0, "UndeliveredAlertAge": 0}
Invoke = Callable[..., dict[str, Any]]


@pytest.fixture
def function(
    market: TwelveDataEmulator, mongodb_uri: str, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Return the handler's module as in a new execution environment, with the market's clock."""
    for name, value in {
        "BARFLOW_ENV": "dev",
        "BARFLOW_SYMBOLS": "AAPL,MSFT",
        "BARFLOW_TWELVEDATA_URL": market.url,
        "TWELVEDATA_API_KEY": "emulator-key",
        "BARFLOW_CREDITS_PER_MINUTE": "1000",
        "BARFLOW_CREDITS_PER_DAY": "",
        "BARFLOW_MONGODB_URI": mongodb_uri,
        "BARFLOW_MONGODB_DATABASE": database.name,
        "BARFLOW_HISTORY_SESSIONS": str(HISTORY),
    }.items():
        monkeypatch.setenv(name, value)
    module = program("lambda/ingest/handler.py")
    module._stores.cache_clear()
    monkeypatch.setattr(module, "Stores", partial(Stores, clock=CLOCK))
    return module


@pytest.fixture
def invoke(function: ModuleType) -> Invoke:
    return lambda **event: function.handler(event, None)


def metrics(output: str) -> dict[tuple[str, str | None], float]:
    """Return the metrics of the EMF lines by (name, symbol)."""
    found = {}
    for line in map(json.loads, output.splitlines()):
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "Barflow"
        assert all(line[name] for name in directive["Dimensions"][0])
        for metric in directive["Metrics"]:
            found[metric["Name"], line.get("Symbol")] = line[metric["Name"]]
    return found


def test_a_tick_stores_and_counts_every_closed_bar(
    invoke: Invoke, database: Database[Document], capsys: pytest.CaptureFixture[str]
) -> None:
    CLOCK.now = DAY_OPENS + timedelta(hours=2, minutes=1)
    done = invoke()
    printed_bars = expected(MARKET, "AAPL", utc("2025-06-30 13:30"), DAY_OPENS + timedelta(hours=2))
    assert stored(database, "AAPL") == printed_bars
    assert (done["outcome"], done["new"], done["forming"]) == ("succeeded", 2 * len(printed_bars), 2)
    assert database["ledger"].find_one({"_id": done["run_id"]})["outcome"] == "succeeded"  # type: ignore[index]
    counted = metrics(capsys.readouterr().out)
    assert counted["BarsIngested", None] == done["new"]
    assert counted["BarsReceived", None] == done["received"]
    assert (counted["Freshness", "AAPL"], counted["Freshness", "MSFT"]) == (60, 60)


def test_unchanged_bars_are_not_counted_as_ingested(invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> None:
    invoke()
    capsys.readouterr()
    assert invoke()["new"] == 0
    assert metrics(capsys.readouterr().out)["BarsIngested", None] == 0


@pytest.mark.parametrize(
    "moment",
    [
        "2025-07-02 13:30",  # the open: no bar has closed yet
        "2025-07-02 20:35",
        "2025-07-03 17:35",  # a half day, which closed at 17:00 UTC
        "2025-07-04 15:00",  # a holiday
        "2025-07-05 15:00",  # a Saturday
    ],
)
def test_while_the_market_is_closed_nothing_is_requested(
    invoke: Invoke, market: TwelveDataEmulator, moment: str
) -> None:
    CLOCK.now = utc(moment)
    assert invoke() == {"outcome": "closed"}
    assert market.requests == []


@pytest.mark.parametrize(("moment", "bars"), [("2025-07-02 20:05", 78), ("2025-07-03 17:10", 42)])
def test_the_closing_bars_are_stored_after_the_close(
    invoke: Invoke, database: Database[Document], moment: str, bars: int
) -> None:
    CLOCK.now = utc(moment)
    assert invoke()["outcome"] == "succeeded"
    day = database["bars"].find_one({"symbol": "AAPL", "session_date": moment[:10]})
    assert day is not None
    assert len(day["ts"]) == bars


def test_a_forced_tick_runs_while_the_market_is_closed(invoke: Invoke, database: Database[Document]) -> None:
    CLOCK.now = utc("2025-07-05 15:00")
    assert invoke(force=True)["outcome"] == "succeeded"
    assert database["bars"].count_documents({}) == 2 * HISTORY


def test_an_invocation_for_corporate_actions_runs_no_tick(
    invoke: Invoke, database: Database[Document], market: TwelveDataEmulator
) -> None:
    market.switches.listed = dict.fromkeys(("AAPL", "MSFT"), utc("2025-06-02 13:30"))
    CLOCK.now = utc("2025-07-02 12:00")
    done = invoke(actions=True)
    assert (done["outcome"], done["vendor_days"], sorted(done["symbols"])) == ("succeeded", 2, ["AAPL", "MSFT"])
    assert database["bars"].count_documents({}) == 0
    market.requests.clear()
    assert invoke(actions=True)["outcome"] == "idle"
    CLOCK.now = utc("2025-07-04 12:00")  # a holiday: only the daily bar of the half day before it is due
    assert invoke(actions=True)["symbols"] == {}
    assert {call.path for call in market.requests} == {"/time_series"}
    limit(market, per_day=0)
    CLOCK.now = utc("2025-07-07 12:00")
    done = invoke(actions=True)
    assert done["outcome"] == "refused"
    assert "API credits of the day were used up" in done["error"]


def test_a_refused_symbol_does_not_fail_the_tick(
    invoke: Invoke, database: Database[Document], market: TwelveDataEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    market.switches.plan_symbols = {"MSFT"}
    done = invoke()
    assert done["outcome"] == "partial"
    assert list(done["errors"]) == ["MSFT"]
    assert database["bars"].distinct("symbol") == ["AAPL"]
    counted = metrics(capsys.readouterr().out)
    assert (counted["SymbolsRefused", None], counted["TicksRefused", None]) == (1, 0)


RULES = """
[[rule]]
id = "any_move"
kind = "move"
percent = 0.01
minutes = 5
channels = ["slack"]
"""


def test_fired_alerts_and_the_age_of_the_oldest_undelivered_one_are_metrics(
    invoke: Invoke,
    database: Database[Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    monkeypatch.setenv("BARFLOW_ALERTS_FILE", str(tmp_path / "rules.toml"))
    monkeypatch.setenv("BARFLOW_SLACK_WEBHOOK", f"http://127.0.0.1:{free_port()}/")  # no server listens there
    invoke()
    counted = metrics(capsys.readouterr().out)
    fired = database["alerts"].count_documents({"due_at": {"$exists": True}})
    assert counted["AlertsFired", None] == fired > 1
    first = database["alerts"].find_one({})
    assert first is not None
    database["alerts"].update_one({"_id": first["_id"]}, {"$set": {"created_at": utc_now() - timedelta(hours=1)}})
    invoke()
    counted = metrics(capsys.readouterr().out)
    assert counted["AlertsFired", None] == 0
    assert 3600 <= counted["UndeliveredAlertAge", None] < 3660
    database["alerts"].update_many({}, {"$unset": {"due_at": ""}})  # as after delivery to every channel
    invoke()
    assert metrics(capsys.readouterr().out)["UndeliveredAlertAge", None] == 0


def test_a_tick_without_credits_is_counted_as_refused_and_not_retried(
    invoke: Invoke, market: TwelveDataEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    limit(market, per_day=1)
    done = invoke()
    assert done["outcome"] == "refused"
    assert "credits of the day" in done["error"]
    counted = metrics(capsys.readouterr().out)
    assert counted == {(name, None): value for name, value in {"TicksRefused": 1, **NO_ALERT}.items()}
    assert len(market.requests) == 1


def test_a_wrong_key_is_sent_once_and_never_shown(
    invoke: Invoke, market: TwelveDataEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWELVEDATA_API_KEY", "a-wrong-key")
    done = invoke()
    assert done["outcome"] == "refused"
    assert "a-wrong-key" not in "".join([done["error"], *capsys.readouterr()])
    assert len(market.requests) == 1


def test_an_unreachable_mongodb_raises_without_its_uri_and_the_next_try_opens_a_new_connection(
    invoke: Invoke, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARFLOW_MONGODB_URI", "mongodb://user:pass-word@127.0.0.1:9/?serverSelectionTimeoutMS=100")
    with pytest.raises(UnavailableError, match="MongoDB could not be reached") as raised:
        invoke()
    assert "pass-word" not in str(raised.value)
    monkeypatch.setenv("BARFLOW_MONGODB_URI", mongodb_uri)
    assert invoke()["outcome"] == "succeeded"


def test_the_connection_is_reused_between_ticks(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    CLOCK.now = DAY_CLOSES
    invoke()
    monkeypatch.setenv("BARFLOW_MONGODB_URI", "mongodb://127.0.0.1:9/")  # no server listens there
    assert invoke()["outcome"] == "succeeded"


def test_the_function_imports_no_heavy_package() -> None:
    heavy = {"pandas", "numpy", "pyarrow", "pyspark", "psycopg", "boto3", "rich", "typer", "fastapi"}
    code = f"import handler, sys; print(*({heavy!r} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HANDLER.parent)
    assert child.stdout.split() == []
