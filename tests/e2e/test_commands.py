"""The commands that read a state print tables, CSV and one JSON object, and refuse bad input in one line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from commands import Replayed, barflow, ticked_again
from console import Ended, in_process
from recordings.reading import rows_by_symbol

from barflow.backtest.stored import Backtests
from barflow.market.validation import FIELD_NAMES, Rejected
from barflow.staging.connection import connect
from barflow.staging.quarantine import Quarantine
from local.services import Services
from local.state import State
from rehearsal.oracle import Oracle


@pytest.fixture
def command(replayed: Replayed) -> Any:
    """Return a function that runs a command on the replayed state."""
    return lambda *arguments: in_process(*arguments, "--state", replayed.state)


@pytest.fixture
def days(oracle: Oracle) -> list[date]:
    """Return the sessions of AAPL in the recording, in order."""
    return sorted(day for symbol, day in oracle.table("daily_metrics") if symbol == "AAPL")


@pytest.fixture
def query(days: list[date]) -> str:
    """Return a query for one row of each symbol: the newest session."""
    columns = "symbol, close, sma_50, session_date"
    return f"select {columns} from market.daily_metrics where session_date = '{days[-1]}' order by symbol"


@pytest.fixture
def newest_closes(oracle: Oracle, days: list[date]) -> dict[str, float]:
    """Return by symbol, in order, the close of the newest session."""
    return {
        symbol: row["close"] for (symbol, day), row in sorted(oracle.table("daily_metrics").items()) if day == days[-1]
    }


def test_sql_prints_a_table(replayed: Replayed, query: str, newest_closes: dict[str, float], days: list[date]) -> None:
    shown = barflow("sql", query, "--state", replayed.state)
    assert shown.code == 0
    lines = [line.split() for line in shown.out.splitlines() if line.strip()]
    assert lines[0] == ["symbol", "close", "sma_50", "session_date"]
    close = newest_closes["AAPL"]
    assert lines[2] == ["AAPL", f"{close:.8g}", str(days[-1])]
    assert float(lines[2][1]) != close, "a table shows eight digits, and this close has more"
    assert lines[-1] == [f"({len(newest_closes)}", "rows)"]


def test_sql_prints_csv_and_json_with_every_digit(
    command: Any, query: str, newest_closes: dict[str, float], days: list[date]
) -> None:
    close, day = newest_closes["AAPL"], str(days[-1])
    rows = [*csv.DictReader(io.StringIO(command("sql", query, "--format", "csv").out))]
    assert rows[0] == {"symbol": "AAPL", "close": str(close), "sma_50": "", "session_date": day}
    listed = json.loads(command("sql", query, "--format", "json").out)
    assert listed[0] == {"symbol": "AAPL", "close": close, "sma_50": None, "session_date": day}
    assert [row["symbol"] for row in listed] == [*newest_closes]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("delete from market.bar_1d", "the query would change the warehouse: only reading is allowed here"),
        ("select 1; drop table market.bar_1d", "the query is wrong: cannot insert multiple commands"),
        ("commit; drop table market.bar_1d", "the query is wrong: cannot insert multiple commands"),
        ("selec 1", 'the query is wrong: syntax error at or near "selec"'),
        ("select * from market.bars", 'the query is wrong: relation "market.bars" does not exist'),
        ("set role postgres", 'the query is wrong: permission denied to set role "postgres"'),
        ("set timezone to 'UTC'", "the query returned no rows to show: give a SELECT"),
        ("", "the query returned no rows to show: give a SELECT"),
    ],
)
def test_sql_only_reads(command: Any, replayed: Replayed, query: str, message: str) -> None:
    before = replayed.stores.warehouse()
    refused: Ended = command("sql", query)
    assert (refused.code, refused.error.startswith(message), refused.out) == (2, True, "")
    assert replayed.stores.warehouse() == before


def test_status_is_balanced_and_names_the_gaps(command: Any, oracle: Oracle) -> None:
    shown: Ended = command("status")
    assert shown.code == 0
    for end in ("ingest: succeeded", "process: succeeded", "aggregate: loaded"):
        assert f"last {end} at 20" in shown.out
    found = command("status", "--json").object
    assert (found["balanced"], found["broken"], found["market_open"]) == (True, False, False)
    outcomes = {hop: run["outcome"] for hop, run in found["runs"].items()}
    assert outcomes == {"ingest": "succeeded", "process": "succeeded", "aggregate": "loaded"}
    assert found["symbols"]["AAPL"]["missing_bars"] > 0, "the recording starts in the middle of a session"
    for symbol, item in found["symbols"].items():
        bars, newest, sessions = oracle.fetch_row(
            f"select count(*), max(bar_start), count(distinct session_date) from bar_5min where symbol = '{symbol}'"
        )
        assert {item[hop] for hop in ("staged", "parquet", "warehouse")} == {bars}
        assert {item[f"newest_{hop}"] for hop in ("staged", "parquet", "warehouse")} == {newest.isoformat()}
        missing = missing_bars(oracle, symbol)
        assert (item["missing_bars"], item["sessions"]) == (sum(count for _, count, _ in missing), sessions)
        assert (item["fresh"], item["pending"]) == (True, 0)
        for day, count, due in missing[:3]:
            assert f"{symbol} gap {day}: {count} of {due} bars missing" in shown.out


def missing_bars(oracle: Oracle, symbol: str) -> list[tuple[date, int, int]]:
    """Return the sessions that lack bars, how many, and of how many, since the symbol's first session."""
    return oracle.db.execute(
        """
        with due as (select day, datediff('minute', opens, closes) // 5 as due from sessions),
        there as (select session_date as day, bar_count from bar_1d where symbol = ?)
        select day, due - coalesce(bar_count, 0), due from due left join there using (day)
        where coalesce(bar_count, 0) < due and day between (select min(day) from there) and (select max(day) from there)
        order by day
        """,
        [symbol],
    ).fetchall()


def test_status_fails_when_a_guarantee_is_broken_and_names_the_session(
    command: Any, replayed: Replayed, oracle: Oracle, days: list[date]
) -> None:
    lake, month = replayed.stores.lake, f"{days[0]:%Y-%m}"
    (bars,) = oracle.fetch_row(f"select bar_count from bar_1d where symbol = 'AAPL' and session_date = '{days[0]}'")
    broken = f"{days[0]}: {bars} bars staged, parquet {bars - 1}"
    whole = lake.read("AAPL", month)
    assert whole is not None
    lake.replace("AAPL", month, whole.slice(1))
    try:
        shown: Ended = command("status")
        found: Ended = command("status", "--json")
    finally:
        lake.replace("AAPL", month, whole)
    assert (shown.code, found.code) == (1, 1)
    assert f"AAPL {broken}" in shown.out
    assert "a guarantee is broken: run `barflow process --full`, then `barflow aggregate`" in shown.out
    assert json.loads(found.out)["symbols"]["AAPL"]["broken"] == [broken]


def test_status_names_the_commands_that_take_pending_sessions(
    command: Any, replayed: Replayed, days: list[date]
) -> None:
    bars = replayed.stores.database["bars"]
    key = {"_id": f"TSLA|5min|{days[-2]}"}
    whole = bars.find_one(key)
    assert whole is not None
    bars.update_one(key, {"$inc": {"version": 1}, "$currentDate": {"updated_at": True}})
    try:
        shown: Ended = command("status")
    finally:
        bars.replace_one(key, whole)
    assert shown.code == 0
    assert "the next `barflow process` and `barflow aggregate` load the pending sessions" in shown.out


def test_export_writes_what_the_archive_holds(command: Any, tmp_path: Path, oracle: Oracle, days: list[date]) -> None:
    first, last = days[:2]
    asked = ("--symbols", "AAPL", "--start", first, "--end", last)
    count, opened = oracle.fetch_row(
        "select count(*), arg_min(open, bar_start) from bar_5min "
        f"where symbol = 'AAPL' and session_date between '{first}' and '{last}'"
    )
    target = tmp_path / "aapl.parquet"
    done: Ended = command("export", *asked, "--to", target)
    manifest = json.loads((tmp_path / "aapl.parquet.manifest.json").read_text())
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            f"{target}: {count} bars of AAPL, {first} to {last}",
            f"as of {manifest['as_of']}; what it holds is in {target}.manifest.json",
        ],
    )
    assert (manifest["rows"], pq.read_table(target)["open"][0].as_py()) == (count, opened)
    # --symbol is the option's earlier name.
    command("export", "--symbol", "AAPL", *asked[2:], "--to", tmp_path / "aapl.csv")
    rows = [*csv.DictReader((tmp_path / "aapl.csv").open())]
    assert (len(rows), rows[0]["symbol"], rows[0]["open"]) == (count, "AAPL", str(opened))

    refused: Ended = command("export", *asked, "--to", target)
    assert (refused.code, refused.error) == (2, f"--to {target}: the file exists; pass --force to replace it")
    assert command("export", *asked, "--to", target, "--force").code == 0
    nowhere: Ended = command("export", *asked, "--to", tmp_path / "no" / "aapl.csv")
    assert nowhere.code == 1
    assert f"could not write {tmp_path}/no/aapl.csv: No such file or directory. Nothing was changed." in nowhere.error


def test_export_of_a_watch_list_prints_the_manifest_and_equals_the_warehouse(
    command: Any, tmp_path: Path, oracle: Oracle, days: list[date]
) -> None:
    (tmp_path / "list.txt").write_text("# mine\nTSLA\n\naapl  # again\nAAPL\n")
    asked = ("--watchlist", tmp_path / "list.txt", "--start", days[0], "--end", days[-1])
    printed = command("export", *asked, "--interval", "1h", "--to", f"{tmp_path}/hours/", "--json").object
    assert [item["symbol"] for item in printed["symbols"]] == ["AAPL", "TSLA"]
    assert (printed["manifest"], printed["interval"]) == (f"{tmp_path}/hours/_manifest.json", "1h")
    assert isinstance(printed["repeatable"], bool)
    columns = "open, high, low, close, volume, bar_count, expected_bars, is_complete"
    found = duckdb.sql(
        f"select symbol, ts, {columns} from read_parquet('{tmp_path}/hours/*/*.parquet', hive_partitioning = true) "
        "order by all"
    ).fetchall()
    expected = f"select symbol, bar_start, {columns} from bar_1h where symbol in ('AAPL', 'TSLA') order by all"
    assert found == oracle.db.execute(expected).fetchall()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--symbols": "NOPE"}, "has no bars of NOPE. Nothing was written. Check the spelling"),
        ({"--symbols": "NO PE"}, "'NO PE' is not a symbol: use letters, digits"),
        ({"--start": "2024-07-02", "--end": "2024-07-03"}, "the archive has no bars of AAPL from 2024-07-02"),
        ({"--start": "{saturday}", "--end": "{sunday}"}, "the archive has no bars of AAPL from {saturday}"),
        ({"--start": "{second}", "--end": "{first}"}, "--end {first} is before --start {second}"),
        ({"--start": "3 July"}, "--start 3 July: give a day such as 2025-01-02"),
        ({"--start": "1999-07-01", "--end": "1999-07-02"}, "no exchange calendar for 1999-07-01"),
        ({"--to": "x.xlsx"}, "--to x.xlsx: the name must end in .csv, .parquet, or / for a folder"),
        ({"--to": "s3://bucket/x.csv"}, "--to s3://bucket/x.csv: an export is written to this machine"),
        ({"--interval": "2h"}, "--interval 2h: choose 5min, 15min, 30min, 1h, 1d, 1w"),
        ({"--adjust": "split"}, "--adjust split: choose none, splits, all"),
        ({"--as-of": "2025-07-30T15:00"}, "--as-of: the moment 2025-07-30T15:00 has no offset from UTC"),
        ({"--as-of": "yesterday"}, "--as-of: 'yesterday' is not a moment"),
        ({"--as-of": "2020-01-02T15:00Z"}, "as of 2020-01-02T15:00:00Z, no bars were known of AAPL from {first}"),
        ({"--watchlist": "a.txt"}, "--symbols and --watchlist exclude each other: give one of them"),
    ],
)
def test_export_names_what_it_cannot_find(
    command: Any, tmp_path: Path, days: list[date], changed: dict[str, str], message: str
) -> None:
    monday = next(day for day in days if day.weekday() == 0)
    known = {"first": days[0], "second": days[1]}
    known |= {"saturday": monday - timedelta(days=2), "sunday": monday - timedelta(days=1)}
    asked = {"--symbols": "AAPL", "--start": "{first}", "--end": "{second}", "--to": f"{tmp_path}/x.csv", **changed}
    arguments = [text.format(**known) for option in asked.items() for text in option]
    refused: Ended = command("export", *arguments)
    assert (refused.code, message.format(**known) in refused.error) == (2, True), refused.error
    assert [*tmp_path.iterdir()] == []


def test_the_schema_is_up_to_date_after_a_demo(command: Any) -> None:
    assert command("migrate").out == "the warehouse and the staged sessions are up to date\n"
    assert command("migrate", "--dry-run").out == "the warehouse and the staged sessions are up to date\n"


def test_each_hop_prints_one_object_and_has_nothing_to_do_after_a_demo(command: Any, replayed: Replayed) -> None:
    assert command("process", "--json").object["outcome"] == "nothing changed"
    assert command("aggregate", "--json").object["outcome"] == "nothing new"
    symbols = rows_by_symbol(replayed.recording)
    ticked = command("ingest", "--symbols", ",".join(symbols), "--json").object
    assert ticked["symbols"] == {symbol: {"new": 0, **ticked_again(replayed.recording, symbol)} for symbol in symbols}


UNTIDY = """datetime,open,high,low,close,volume,symbol
2025-07-02 09:30:00,10,11,9,10,100,QTNE
2025-07-02 09:36:00,10,11,9,10,100,QTNE
2025-07-02 09:40:00,0,11,0,10,100,QTNE
2025-07-02 15:55:00,10,11,9,10,100,QTNE
"""


@pytest.fixture
def quarantined(folder: Path) -> Iterator[Path]:
    """Return a state with two rejected bars, and one that a slow clock rejected."""
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
        "no single rejected bar has an id that starts with zzz. Run `barflow rejected list` to see ids.",
    )


RULES_TO_TRY = """
lists.two = ["AAPL", "TSLA"]
[[rule]]
id = "move"
kind = "move"
percent = 0.5
minutes = 30
[[rule]]
id = "falls"
when = "fall_pct(30) > 0.5 && rsi(14) < 30.0"
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Return a file with two rules and a watch list."""
    path = tmp_path / "my.toml"
    path.write_text(RULES_TO_TRY)
    return path


def test_a_backtest_of_the_archive_equals_that_of_its_recording_and_is_stored(
    command: Any, replayed: Replayed, rules: Path, tmp_path: Path, days: list[date]
) -> None:
    asked = ("alerts", "backtest", "--rules", rules, "--symbols", "@two")
    page = tmp_path / "report.html"
    found = command(*asked, "--start", days[5], "--end", days[14], "--html", page, "--json").object
    assert (found["first"], found["last"], found["sessions"]) == (str(days[5]), str(days[14]), 10)
    assert (found["symbols"], [*found["rules"]]) == (["AAPL", "TSLA"], ["move", "falls"])
    recorded = in_process(*asked, "--replay", replayed.recording, "--adjust", "none", "--json").object
    assert recorded["source"] == replayed.recording.name
    in_period = [item for item in recorded["alerts"] if found["first"] <= item["session_date"] <= found["last"]]
    assert found["alerts"] == in_period
    for name, rule in found["rules"].items():
        assert rule["alerts"] == sum(item["rule"] == name for item in in_period) == sum(rule["by_month"].values())
        assert rule["returns"]["close"]["alerts"] > 0
        for moved in rule["sensitivity"]:
            if moved["threshold"] == "rsi(14) < 30.0":
                assert moved["counts"]["-20"] <= rule["alerts"] <= moved["counts"]["+20"]
            else:
                assert moved["counts"]["-20"] >= rule["alerts"] >= moved["counts"]["+20"]
    assert "falls" in page.read_text()

    shown: Ended = command(*asked, "--rule", "falls", "--end", days[14])
    assert (shown.code, f"{days[0]} to {days[14]}: 15 sessions, 2 symbols" in shown.out) == (0, True), shown.err
    assert "rsi(14) < 30.0" in shown.out
    newest = Backtests(connect(replayed.stores.mongodb_uri)).newest()[0]
    assert [rule["rule"] for rule in newest["rules"]] == ["falls"]
    options = f"--rules {rules} --rule falls --symbols @two --end {days[14]} --state {replayed.state}"
    assert newest["command"] == f"barflow alerts backtest {options}"


def test_a_backtest_needs_the_lake_alone(replayed: Replayed, rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("alerts", "backtest", "--rules", rules, "--symbols", "AAPL", "--no-sensitivity", "--json")
    monkeypatch.setenv("BARFLOW_LAKE_URI", replayed.stores.lake_uri)
    alone: Ended = in_process(*asked)
    assert alone.object["rules"]["move"]["sensitivity"] == []
    assert "the page does not list" not in alone.err
    monkeypatch.setenv("BARFLOW_MONGODB_URI", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50")
    down: Ended = in_process(*asked)
    assert down.object["alerts"] == alone.object["alerts"]
    assert "the page does not list this backtest: MongoDB could not be reached" in down.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--replay", "{recording}", "--start", "2025-07-02"),
            "--replay and --start or --end: a recording is evaluated",
        ),
        (("--rules", "no.toml"), "no.toml cannot be read (No such file or directory). Set --rules to a TOML file"),
        (("--rule", "no"), "--rule no: no such rule; there are move, falls"),
        (("--symbols", "@no"), "--symbols @no: the rules file has no such list; there are @two"),
        (("--symbols", "NOPE"), "has no bars of NOPE from the first bar to the newest. Nothing was evaluated."),
        (("--end", "2020-07-02"), "from the first bar to 2020-07-02. Nothing was evaluated. Choose other days"),
        (("--start", "2035-07-02"), "from 2035-07-02 to the newest. Nothing was evaluated. Choose other days"),
        (("--start", "2025-07-03", "--end", "2025-07-02"), "--end 2025-07-02 is before --start 2025-07-03"),
        (("--replay", "{recording}", "--symbols", "NOPE"), "--symbols: the recording has no bars of NOPE; it has AAPL"),
        (("--adjust", "all"), "--adjust all: choose none or splits"),
        (("--replay", "{recording}", "--as-known"), "--replay and --as-known: a recording does not say when"),
        (("--as-known", "--adjust", "none"), "--as-known and --adjust none: the ticks compared by the splits"),
        (("--actions", "x.csv"), "--actions is for --replay: the archive has its own splits"),
        (("--html", "no/x.html"), "--html no/x.html: the folder no does not exist"),
        (("--html", "."), "--html .: it is a folder"),
    ],
)
def test_a_backtest_names_what_it_cannot_do(
    command: Any, replayed: Replayed, rules: Path, options: tuple[str, ...], message: str
) -> None:
    given = [option.format(recording=replayed.recording) for option in options]
    symbols = () if "--symbols" in options else ("--symbols", "AAPL")
    ended: Ended = command("alerts", "backtest", "--rules", rules, *symbols, *given)
    assert (ended.code, message in ended.error) == (2, True), ended.error
