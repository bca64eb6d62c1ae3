"""The commands `barflow alerts …` print tables and JSON, and every error in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from alert_ticks import answer, at, hop
from pymongo.database import Database

from barflow.staging.connection import Document


def barflow(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `barflow alerts ARGUMENTS` in its own process."""
    command = [sys.executable, "-m", "barflow.cli.main", "alerts", *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


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
    assert done.returncode == 0
    assert json.loads(done.stdout) == [
        {
            "id": "gap_5pct|AAPL|2025-07-30T13:30:00Z",
            "rule": "gap_5pct",
            "symbol": "AAPL",
            "session_date": "2025-07-30",
            "bar_start": "2025-07-30T13:30:00Z",
            "value": 6.0,
        }
    ]
    assert "AAPL: validation rejected 1 bars" in done.stderr
    table = barflow("test", "--replay", recording)
    assert "AAPL opened 6.00 % above the previous close of 100.00" in table.stdout


def test_an_unknown_rule_and_an_invalid_file_are_bad_input_in_one_line(recording: Path, tmp_path: Path) -> None:
    unknown = barflow("test", "--replay", recording, "--rule", "gap")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith(
        "error: --rule gap: no such rule; there are gap_5pct, unknown_split, move_3pct_30min"
    )
    broken = tmp_path / "alerts.toml"
    broken.write_text('[[rule]]\nid = "a"\nkind = "gap"\npercent = 0')
    for command in (("rules",), ("test", "--replay", recording)):
        done = barflow(*command, BARFLOW_ALERTS_FILE=str(broken))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "rule a: percent = 0: must be greater than 0" in done.stderr


def test_the_rules_are_shown_with_their_history_and_their_values_per_symbol(tmp_path: Path) -> None:
    shown = barflow("rules")
    assert "average: 20 sessions" in shown.stdout
    printed = json.loads(barflow("rules", "--json").stdout)
    assert printed["rules"][0]["id"] == "gap_5pct"
    assert printed["per_symbol"] == {}
    own = tmp_path / "alerts.toml"
    own.write_text('[[rule]]\nid = "a"\nkind = "gap"\npercent = 5.0\nper_symbol.TSLA.percent = 8.0')
    printed = json.loads(barflow("rules", "--json", BARFLOW_ALERTS_FILE=str(own)).stdout)
    assert [rule["percent"] for rule in printed["per_symbol"]["TSLA"]] == [8.0]


def test_the_alerts_that_fired_are_listed_with_their_delivery(database: Database[Document], mongodb_uri: str) -> None:
    hop(database, answer("AAPL", [100.0, 102.0], at(2)), now=at(2)).tick(["AAPL"])
    stores = {
        "BARFLOW_MONGODB_URI": mongodb_uri,
        "BARFLOW_MONGODB_DATABASE": database.name,
        "BARFLOW_LAKE_URI": "unused",
    }
    printed = json.loads(barflow("list", "--symbols", "aapl", "--json", **stores).stdout)
    assert [item["_id"] for item in printed["alerts"]] == ["level_101|AAPL|2025-07-30T13:35:00Z"]
    shown = barflow("list", **stores).stdout
    assert "2025-07-30 09:35" in shown
    assert "sse sent" in shown
    assert json.loads(barflow("list", "--undelivered", "--json", **stores).stdout) == {"alerts": []}
