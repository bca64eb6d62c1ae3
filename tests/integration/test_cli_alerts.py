"""The commands `barflow alerts …` print tables and JSON, and every error in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from alert_ticks import answer, at, hop
from console import Ended, in_process
from pymongo.database import Database

from barflow.cli import alerts
from barflow.market.actions import Split
from barflow.market.sessions import utc_now
from barflow.pipeline.stores import Stores
from barflow.settings import Settings
from barflow.staging.actions import Actions, Answer
from barflow.staging.connection import Document


def barflow(*arguments: object, **settings: str) -> Ended:
    """Run `barflow alerts ARGUMENTS`."""
    return in_process("alerts", *arguments, settings=settings)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a recording of two sessions, newest bar first. The second opens 6 % higher, and one bar is invalid."""
    rows = ["datetime,open,high,low,close,volume,symbol"]
    rows += ["2025-07-30 09:35:00,106,106,106,-1,1000,AAPL", "2025-07-30 09:30:00,106,106,106,106,1000,AAPL"]
    rows += ["2025-07-29 15:55:00,100,100,100,100,1000,AAPL"]
    path = tmp_path / "bars.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_testing_the_rules_prints_the_alerts_that_fire_on_a_recording(recording: Path) -> None:
    done = barflow("test", "--replay", recording, "--rule", "gap_5pct", "--json")
    assert done.code == 0
    assert json.loads(done.out) == [
        {
            "id": "gap_5pct|AAPL|2025-07-30T13:30:00Z",
            "rule": "gap_5pct",
            "symbol": "AAPL",
            "session_date": "2025-07-30",
            "bar_start": "2025-07-30T13:30:00Z",
            "direction": "up",
            "value": 6.0,
        }
    ]
    assert "AAPL: validation rejected 1 bars" in done.err
    table = barflow("test", "--replay", recording)
    assert "AAPL opened 6.00 % above the previous close of 100.00" in table.out


@pytest.fixture
def split_recording(tmp_path: Path) -> Path:
    """Return a recording of two sessions. The second opens after a 10-for-1 split with a true gap of -6 %."""
    path = tmp_path / "split.csv"
    path.write_text(
        "datetime,open,high,low,close,volume,symbol\n"
        "2025-07-29 15:55:00,1000,1000,1000,1000,1000,AAPL\n2025-07-30 09:30:00,94,94,94,94,1000,AAPL\n"
    )
    return path


def test_recorded_bars_are_tested_with_the_splits_of_a_file(split_recording: Path, tmp_path: Path) -> None:
    splits = tmp_path / "actions.csv"
    splits.write_text("symbol,kind,ex_date,ratio,amount\nAAPL,split,2025-07-30,10:1,\nAAPL,dividend,2025-07-30,,5\n")

    def fired(*options: object) -> tuple[dict[str, float], str]:
        done = barflow("test", "--replay", split_recording, *options, "--json")
        assert done.code == 0, done.err
        return {item["rule"]: item["value"] for item in json.loads(done.out)}, done.err

    found, told = fired("--actions", splits)
    assert found == {"gap_5pct": -6.0}
    assert told == ""
    found, told = fired()
    assert found == {"unknown_split": -90.6}
    assert "no splits of these symbols are given" in told
    assert "AAPL: the session of 2025-07-30 opens at 94.00 after a close of 1,000.00, like a 10-for-1 split" in told
    found, told = fired("--adjust", "none", "--actions", splits)
    assert found == {"gap_5pct": -90.6}
    assert told == ""


def test_wrong_choices_of_splits_are_bad_input_in_one_line(split_recording: Path, tmp_path: Path) -> None:
    splits = tmp_path / "actions.csv"
    splits.write_text("symbol,kind,ex_date,ratio,amount\nAAPL,split,2025-07-30,0,\n")
    for options, message in (
        (("--adjust", "all"), "--adjust all: choose none or splits"),
        (("--actions", splits, "--state", tmp_path), "--actions and --state: give one of them"),
        (("--actions", splits), "line 2: a split's ratio must be from 1e-06 to 1e+06, not 0"),
        (("--actions", tmp_path / "none.csv"), "none.csv: No such file or directory"),
    ):
        done = barflow("test", "--replay", split_recording, *options)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert message in done.err


def test_recorded_bars_are_tested_with_the_staged_splits_of_a_state(
    database: Database[Document], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = utc_now()
    known = Split("AAPL", date(2025, 7, 30), 10.0, "endpoint", now)
    Actions(database).store([Answer("AAPL", "split", [known], "endpoint", now, now)])

    @contextmanager
    def opened(state: Path | None, **needed: bool) -> Iterator[Stores]:
        stores = Stores(Settings())
        stores.__dict__["database"] = database
        yield stores

    monkeypatch.setattr(alerts, "opened", opened)
    found = alerts.splits_to_test("splits", None, Path("state"), ["AAPL", "MSFT"])
    assert found is not None
    assert [(item.ex_date, item.ratio) for item in found["AAPL"]] == [(known.ex_date, 10.0)]
    assert capsys.readouterr().err == ""
    alerts.splits_to_test("splits", None, Path("state"), ["MSFT"])
    assert "no splits of these symbols are given" in capsys.readouterr().err


def test_an_unknown_rule_and_an_invalid_file_are_bad_input_in_one_line(recording: Path, tmp_path: Path) -> None:
    unknown = barflow("test", "--replay", recording, "--rule", "gap")
    assert (unknown.code, unknown.out) == (2, "")
    assert unknown.err.startswith("error: --rule gap: no such rule; there are gap_5pct, unknown_split, move_3pct_30min")
    broken = tmp_path / "alerts.toml"
    broken.write_text('[[rule]]\nid = "a"\nkind = "gap"\npercent = 0')
    for command in (("rules",), ("test", "--replay", recording)):
        done = barflow(*command, BARFLOW_ALERTS_FILE=str(broken))
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "rule a: percent = 0: must be greater than 0" in done.err


def test_the_rules_are_shown_with_their_history_and_their_values_per_symbol(tmp_path: Path) -> None:
    shown = barflow("rules")
    assert "average: 20 sessions" in shown.out
    printed = json.loads(barflow("rules", "--json").out)
    assert printed["rules"][0]["id"] == "gap_5pct"
    assert printed["per_symbol"] == {}
    own = tmp_path / "alerts.toml"
    own.write_text('[[rule]]\nid = "a"\nkind = "gap"\npercent = 5.0\nper_symbol.TSLA.percent = 8.0')
    printed = json.loads(barflow("rules", "--json", BARFLOW_ALERTS_FILE=str(own)).out)
    assert [rule["percent"] for rule in printed["per_symbol"]["TSLA"]] == [8.0]


def test_the_alerts_that_fired_are_listed_with_their_delivery(database: Database[Document], mongodb_uri: str) -> None:
    hop(database, answer("AAPL", [100.0, 102.0], at(2)), now=at(2)).tick(["AAPL"])
    stores = {
        "BARFLOW_MONGODB_URI": mongodb_uri,
        "BARFLOW_MONGODB_DATABASE": database.name,
        "BARFLOW_LAKE_URI": "unused",
    }
    printed = json.loads(barflow("list", "--symbols", "aapl", "--json", **stores).out)
    assert [item["_id"] for item in printed["alerts"]] == ["level_101|AAPL|2025-07-30T13:35:00Z"]
    shown = barflow("list", **stores).out
    assert "2025-07-30 09:35" in shown
    assert "sse sent" in shown
    assert json.loads(barflow("list", "--undelivered", "--json", **stores).out) == {"alerts": []}
