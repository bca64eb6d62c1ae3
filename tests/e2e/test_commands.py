"""The commands that look at a state: what they print as a table, as CSV, as one JSON object, and what they refuse."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import Ended, Replayed, barflow, in_process

from barflow.market.validation import FIELD_NAMES, Rejected
from barflow.staging.connection import connect
from barflow.staging.quarantine import Quarantine
from local.services import Services
from local.state import State


@pytest.fixture
def command(replayed: Replayed) -> Any:
    """Runs a command on the replayed state."""
    return lambda *arguments: in_process(*arguments, "--state", replayed.state)


QUERY = "select symbol, close, sma_50, session_date from market.daily_metrics where session_date = '2025-07-30'"


def test_sql_prints_a_table(replayed: Replayed) -> None:
    shown = barflow("sql", QUERY + " order by symbol", "--state", replayed.state)
    assert shown.code == 0
    lines = [line.split() for line in shown.out.splitlines() if line.strip()]
    assert lines[0] == ["symbol", "close", "sma_50", "session_date"]
    assert lines[2] == ["AAPL", "209.02", "2025-07-30"]
    assert lines[-1] == ["(5", "rows)"]


def test_sql_prints_csv_and_json_with_every_digit(command: Any) -> None:
    rows = [*csv.DictReader(io.StringIO(command("sql", QUERY + " order by symbol", "--format", "csv").out))]
    assert rows[0] == {"symbol": "AAPL", "close": "209.020004", "sma_50": "", "session_date": "2025-07-30"}
    listed = json.loads(command("sql", QUERY + " order by symbol", "--format", "json").out)
    assert listed[0] == {"symbol": "AAPL", "close": 209.020004, "sma_50": None, "session_date": "2025-07-30"}
    assert [row["symbol"] for row in listed] == ["AAPL", "GOOGL", "MSFT", "NVDA", "TSLA"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("delete from market.bar_1d", "the query would change the warehouse: only reading is allowed here"),
        ("select 1; drop table market.bar_1d", "the query is wrong: cannot insert multiple commands"),
        ("commit; drop table market.bar_1d", "the query is wrong: cannot insert multiple commands"),
        ("selec 1", 'the query is wrong: syntax error at or near "selec"'),
        ("select * from market.bars", 'the query is wrong: relation "market.bars" does not exist'),
        ("set role postgres", "the query returned no rows to show: give a SELECT"),
        ("", "the query returned no rows to show: give a SELECT"),
    ],
)
def test_sql_only_reads(command: Any, replayed: Replayed, query: str, message: str) -> None:
    before = replayed.stores.warehouse()
    refused: Ended = command("sql", query)
    assert (refused.code, refused.error.startswith(message), refused.out) == (2, True, "")
    assert replayed.stores.warehouse() == before


def test_status_is_balanced_and_names_the_gap(command: Any) -> None:
    shown: Ended = command("status")
    assert shown.code == 0
    assert "AAPL gap 2025-07-02: 24 of 78 bars missing" in shown.out
    for end in ("ingest: succeeded", "process: succeeded", "aggregate: loaded"):
        assert f"last {end} at 20" in shown.out
    found = command("status", "--json").object
    assert (found["balanced"], found["broken"], found["market_open"]) == (True, False, False)
    aapl = found["symbols"]["AAPL"]
    assert {aapl[hop] for hop in ("staged", "parquet", "warehouse")} == {1500}
    assert {aapl[f"newest_{hop}"] for hop in ("staged", "parquet", "warehouse")} == {"2025-07-30T19:55:00+00:00"}
    assert (aapl["missing_bars"], aapl["sessions"], aapl["fresh"], aapl["pending"]) == (24, 20, True, 0)
    outcomes = {hop: run["outcome"] for hop, run in found["runs"].items()}
    assert outcomes == {"ingest": "succeeded", "process": "succeeded", "aggregate": "loaded"}


def test_status_fails_when_a_guarantee_is_broken_and_says_where(command: Any, replayed: Replayed) -> None:
    lake = replayed.stores.lake
    whole = lake.read("AAPL", "2025-07")
    assert whole is not None
    lake.replace("AAPL", "2025-07", whole.slice(1))
    try:
        shown: Ended = command("status")
        found: Ended = command("status", "--json")
    finally:
        lake.replace("AAPL", "2025-07", whole)
    assert (shown.code, found.code) == (1, 1)
    assert "AAPL 2025-07-02: 54 bars staged, parquet 53" in shown.out
    assert "a guarantee is broken: run `barflow process --full`, then `barflow aggregate`" in shown.out
    assert json.loads(found.out)["symbols"]["AAPL"]["broken"] == ["2025-07-02: 54 bars staged, parquet 53"]


def test_status_tells_what_the_next_runs_will_take_from_what_is_broken(command: Any, replayed: Replayed) -> None:
    bars = replayed.stores.database["bars"]
    key = {"_id": "TSLA|5min|2025-07-29"}
    whole = bars.find_one(key)
    assert whole is not None
    bars.update_one(key, {"$inc": {"version": 1}, "$currentDate": {"updated_at": True}})
    try:
        shown: Ended = command("status")
    finally:
        bars.replace_one(key, whole)
    assert shown.code == 0
    assert "pending sessions are taken by the next `barflow process` and `barflow aggregate`" in shown.out


def test_export_writes_what_the_archive_holds(command: Any, tmp_path: Path) -> None:
    days = ("--symbol", "AAPL", "--start", "2025-07-02", "--end", "2025-07-03")
    target = tmp_path / "aapl.parquet"
    done: Ended = command("export", *days, "--to", target)
    assert (done.code, done.out) == (0, f"{target}: 96 bars of AAPL, 2025-07-02 to 2025-07-03\n")
    assert pq.read_table(target)["open"][0].as_py() == 211.49001
    command("export", *days, "--to", tmp_path / "aapl.csv")
    rows = [*csv.DictReader((tmp_path / "aapl.csv").open())]
    assert (len(rows), rows[0]["symbol"], rows[0]["open"]) == (96, "AAPL", "211.49001")

    refused: Ended = command("export", *days, "--to", target)
    assert (refused.code, refused.error) == (2, f"--to {target}: the file exists; pass --force to replace it")
    assert command("export", *days, "--to", target, "--force").code == 0
    assert command("export", *days, "--to", tmp_path / "no" / "aapl.csv").code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--symbol", "NOPE", "--start", "2025-07-02", "--end", "2025-07-03"), "the archive has no bars of NOPE"),
        (("--symbol", "AAPL", "--start", "2024-07-02", "--end", "2024-07-03"), "the archive has no bars of AAPL"),
        (("--symbol", "AAPL", "--start", "2025-07-05", "--end", "2025-07-06"), "the archive has no bars of AAPL"),
        (("--symbol", "AAPL", "--start", "2025-07-03", "--end", "2025-07-02"), "--end 2025-07-02 is before --start"),
        (("--symbol", "AAPL", "--start", "3 July", "--end", "2025-07-02"), "--start 3 July: give a day as 2025-01-02"),
        (("--symbol", "AAPL", "--start", "1999-07-01", "--end", "1999-07-02"), "no exchange calendar for 1999-07-01"),
    ],
)
def test_export_says_what_it_cannot_find(command: Any, tmp_path: Path, arguments: Any, message: str) -> None:
    refused: Ended = command("export", *arguments, "--to", tmp_path / "x.csv")
    assert (refused.code, refused.error.startswith(message)) == (2, True)
    assert [*tmp_path.iterdir()] == []


def test_the_schema_is_up_to_date_after_a_demo(command: Any) -> None:
    assert command("migrate").out == "the schema is up to date\n"
    assert command("migrate", "--dry-run").out == "the schema is up to date\n"


def test_each_hop_prints_one_object_and_has_nothing_to_do_after_a_demo(command: Any) -> None:
    assert command("process", "--json").object["outcome"] == "nothing changed"
    assert command("aggregate", "--json").object["outcome"] == "nothing new"
    ticked = command("ingest", "--json").object
    assert ticked["symbols"]["AAPL"] == {
        "received": 234,
        "new": 0,
        "revised": 0,
        "unchanged": 234,
        "rejected": 0,
        "forming": 0,
    }


UNTIDY = """datetime,open,high,low,close,volume,symbol
2025-07-02 09:30:00,10,11,9,10,100,QTNE
2025-07-02 09:36:00,10,11,9,10,100,QTNE
2025-07-02 09:40:00,0,11,0,10,100,QTNE
2025-07-02 15:55:00,10,11,9,10,100,QTNE
"""


@pytest.fixture
def quarantined(folder: Path) -> Iterator[Path]:
    """A state with two refused bars, and one that was refused for a clock that was slow."""
    recording, state = folder / "untidy.csv", folder / "state"
    recording.write_text(UNTIDY)
    source = {"kind": "replay", "path": str(recording)}
    opened = State.create(state, source=source, as_of=datetime(2025, 7, 2, 20, tzinfo=UTC))
    with Services(opened, print, postgres=False) as services:
        ticked = in_process("ingest", "--symbols", "QTNE", "--state", state, "--json").object
        assert (ticked["symbols"]["QTNE"]["new"], ticked["symbols"]["QTNE"]["rejected"]) == (2, 2)
        good = dict(zip(FIELD_NAMES, ("2025-07-02 13:50:00", "10", "11", "9", "10.5", "7"), strict=True))
        quarantine = Quarantine(connect(services.mongodb_uri))
        quarantine.add([Rejected("QTNE", good, ("future_bar",))], "test", datetime(2025, 7, 2, 13, 40, tzinfo=UTC))
        yield state


def test_the_quarantine_is_listed_shown_and_replayed(quarantined: Path) -> None:
    def rejected(*arguments: str) -> Ended:
        return in_process("rejected", *arguments, "--state", quarantined)

    shown = rejected("list")
    assert shown.code == 0
    for word in ("QTNE", "off_grid", "non_positive_price", "future_bar", "2025-07-02 13:36:00"):
        assert word in shown.out
    (listed,) = rejected("list", "--json", "--reason", "off_grid").object["rejected"]
    assert listed["payload"]["datetime"] == "2025-07-02 13:36:00"
    one = rejected("show", listed["_id"][:8]).object
    assert (one["payload"], one["meaning"].keys()) == (listed["payload"], {"off_grid"})

    replayed = rejected("replay", "--json").object
    assert replayed == {"stored": 1, "unchanged": 0, "refused": {"off_grid": 1, "non_positive_price": 1}}
    waiting = rejected("list", "--json").object["rejected"]
    assert sorted(item["reasons"][0] for item in waiting) == ["non_positive_price", "off_grid"]
    assert len(rejected("list", "--json", "--all").object["rejected"]) == 3
    assert rejected("list", "--symbols", "AAPL").out == "nothing is in quarantine\n"
    missing = rejected("show", "zzz")
    assert (missing.code, missing.error) == (
        2,
        "no single rejected bar has an id that starts with zzz: see barflow rejected list",
    )
