"""An export appears completely or not at all, states what it holds, and is the same again as of the same moment."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from harness import publish_actions

from barflow.cli.export import export as export_command
from barflow.errors import BadInputError, BarflowError, BusyError
from barflow.lake.export import export
from barflow.lake.export_manifest import manifest_of
from barflow.lake.manifests import Manifest
from barflow.lake.partitions import Lake
from barflow.lake.query import Query
from barflow.lake.targets import Target
from barflow.market.actions import Dividend, Split, Version
from barflow.market.arrow import arrow_schema, history_schema
from barflow.market.sessions import session, sessions_between

FIRST, LAST = date(2025, 6, 30), date(2025, 7, 3)  # July 3 is a half day
THEN, NOW = datetime(2025, 7, 3, 21, tzinfo=UTC), datetime(2025, 7, 9, 21, tzinfo=UTC)
SPLIT = date(2025, 7, 2)
PAID = Version(Dividend("MSFT", SPLIT, 2.0, "USD", "endpoint", THEN - timedelta(days=20)))
FORMS = ("bars.csv", "bars.parquet", "bars/")


def rows(day: date, close: float, *, bars: int | None = None, **values: Any) -> list[dict[str, Any]]:
    traded = session(day)
    assert traded is not None
    prices = {"open": close - 1, "high": close + 2, "low": close - 2, "close": close}
    each = {"session_date": day, **prices, "volume": 101, "revision": 0}
    return [
        {"ts": ts, **each, "known_from": ts + timedelta(minutes=5, seconds=3), **values} for ts in traded.slots[:bars]
    ]


def month_of(day: date) -> str:
    return f"{day:%Y-%m}"


def put(lake: Lake, symbol: str, bars: list[dict[str, Any]]) -> None:
    """Write the months of these bars."""
    for month in sorted({month_of(item["session_date"]) for item in bars}):
        held = [item for item in bars if month_of(item["session_date"]) == month]
        lake.replace(symbol, month, pa.Table.from_pylist(held, arrow_schema()))


def publish(lake: Lake, started: datetime, took: timedelta = timedelta(seconds=1)) -> None:
    """Publish a manifest as a process run does."""
    run_id = f"{started:%Y%m%dT%H%M%SZ}-process-1"
    lake.publish(Manifest(run_id, started + took, (), complete_until=started))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Return an archive as it is at THEN: AAPL with gaps, MSFT complete."""
    made = Lake(str(tmp_path / "lake"))
    days = [item.session_date for item in sessions_between(FIRST, LAST)]
    put(made, "AAPL", [*rows(days[0], 200.0), *rows(days[2], 202.0, bars=70), *rows(days[3], 203.0)])
    put(made, "MSFT", [item for number, day in enumerate(days) for item in rows(day, 500.0 + number)])
    publish_actions(made, "AAPL")
    publish_actions(made, "MSFT", PAID)
    publish(made, THEN - timedelta(minutes=10))
    return made


def correct(lake: Lake) -> None:
    """Correct a bar of AAPL, add the bars that were missing, and learn of a split of MSFT: all after THEN."""
    later = THEN + timedelta(days=1)
    days = [item.session_date for item in sessions_between(FIRST, LAST)]
    whole = [
        *rows(days[0], 200.0),
        *rows(days[1], 201.0, known_from=later),
        *rows(days[2], 202.0),
        *rows(days[3], 203.0),
    ]
    for item in whole:
        if item["session_date"] == days[2] and item["ts"] >= session(days[2]).slots[70]:
            item["known_from"] = later
    first = next(item for item in whole if item["session_date"] == days[2])
    old = {**first, "known_until": later}
    first |= {"close": 201.5, "revision": 1, "known_from": later}
    path = Path(lake.history_path("AAPL", "2025-07"))
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([old], history_schema()), path)
    put(lake, "AAPL", whole)
    publish_actions(lake, "MSFT", PAID, Version(Split("MSFT", SPLIT, 2.0, "endpoint", later)))
    publish(lake, THEN - timedelta(seconds=5), took=timedelta(minutes=1))
    publish(lake, later + timedelta(minutes=10))


Export = Callable[..., dict[str, Any]]


@pytest.fixture
def exported(lake: Lake, tmp_path: Path) -> Export:
    """Return the function that exports AAPL and MSFT as of THEN to a target in the test's folder."""

    def run(
        to: str,
        *,
        symbols: Sequence[str] = ("MSFT", "AAPL"),
        force: bool = False,
        on_symbol: Callable[[str], None] = lambda _: None,
        **asked: Any,
    ) -> dict[str, Any]:
        target = tmp_path / to
        target.parent.mkdir(exist_ok=True)
        query = Query(**{"first": FIRST, "last": LAST, "adjust": "none", "as_of": THEN, **asked})
        goal = Target.of(f"{target}{'/' * to.endswith('/')}", force=force)
        return export(lake, symbols, query, goal, on_symbol=on_symbol)

    return run


def shown(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest as its JSON text states it."""
    return dict(json.loads(json.dumps(manifest, default=str)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("interval", ["5min", "30min", "1w"])
@pytest.mark.parametrize("adjust", ["none", "all"])
def test_an_export_as_of_a_moment_is_the_same_byte_for_byte_when_it_is_made_later(
    exported: Export, lake: Lake, tmp_path: Path, to: str, interval: str, adjust: str
) -> None:
    exported(f"then/{to}", interval=interval, adjust=adjust)
    correct(lake)
    later = exported(f"later/{to}", interval=interval, adjust=adjust)
    assert later["as_of"] == "2025-07-03T21:00:00Z"
    assert contents(tmp_path / "later") == contents(tmp_path / "then")
    exported(f"now/{to}", interval=interval, adjust=adjust, as_of=NOW)
    assert contents(tmp_path / "now") != contents(tmp_path / "then")


def test_every_form_holds_the_same_rows_and_every_tool_reads_it(exported: Export, tmp_path: Path) -> None:
    for to in FORMS:
        exported(to, adjust="all")
    whole = pq.read_table(tmp_path / "bars.parquet")
    assert whole.num_rows == 78 + 70 + 42 + 3 * 78 + 42
    assert whole["symbol"].to_pylist() == sorted(whole["symbol"].to_pylist())
    folder = tmp_path / "bars"
    assert sorted(item.name for item in folder.iterdir()) == ["_manifest.json", "symbol=AAPL", "symbol=MSFT"]
    columns = whole.column_names
    by_tool = {
        "pyarrow": ds.dataset(folder, partitioning="hive").to_table(),
        "pandas": pa.Table.from_pandas(pd.read_parquet(folder), preserve_index=False),
        "polars": pl.read_parquet(folder / "**/*.parquet", hive_partitioning=True).to_arrow(),
        "duckdb": duckdb.sql(f"from read_parquet('{folder}/**/*.parquet', hive_partitioning = true)").to_arrow_table(),
        "csv": duckdb.sql(f"from read_csv('{tmp_path}/bars.csv')").to_arrow_table(),
    }
    for tool, table in by_tool.items():
        assert set(table.column_names) == set(columns), tool
        found = table.select(columns).cast(whole.schema).sort_by([("symbol", "ascending"), ("ts", "ascending")])
        assert found.equals(whole), tool


def test_the_manifest_states_what_the_files_hold(exported: Export, tmp_path: Path) -> None:
    manifest = exported("bars/", adjust="all", last=date(2025, 7, 8), as_of=NOW - timedelta(days=1))
    written = json.loads((tmp_path / "bars/_manifest.json").read_text())
    assert written == shown(manifest)
    asked = {name: written[name] for name in ("as_of", "interval", "adjust", "start", "end")}
    assert asked == {
        **{"as_of": "2025-07-08T21:00:00Z", "interval": "5min", "adjust": "all"},
        **{"start": "2025-06-30", "end": "2025-07-08"},
    }
    assert written["complete_until"] == "2025-07-03T20:50:00Z"
    aapl, msft = written["symbols"]
    assert (written["rows"], written["sessions"], aapl["rows"], aapl["sessions"]) == (466, 4, 190, 3)
    assert (aapl["first_session"], aapl["last_session"]) == ("2025-06-30", "2025-07-03")
    after = {"first": "2025-07-07", "last": "2025-07-08", "sessions": 2}
    assert aapl["sessions_without_bars"] == [{"first": "2025-07-01", "last": "2025-07-01", "sessions": 1}, after]
    assert aapl["incomplete_sessions"] == [{"session_date": "2025-07-02", "bars": 70, "due": 78}]
    assert (msft["sessions_without_bars"], msft["incomplete_sessions"]) == ([after], [])
    paid = {"kind": "dividend", "ex_date": "2025-07-02", "amount": 2.0, "source": "endpoint"}
    assert (aapl["actions"], msft["actions"]) == ([], [{**paid, "known_from": "2025-06-13T21:00:00Z"}])
    for file in written["files"]:
        body = (tmp_path / "bars" / file["path"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    exported("bars.csv")
    (file,) = json.loads((tmp_path / "bars.csv.manifest.json").read_text())["files"]
    assert file["sha256"] == hashlib.sha256((tmp_path / "bars.csv").read_bytes()).hexdigest()


def test_a_bar_is_missing_only_when_it_was_due_and_the_share_listed(exported: Export) -> None:
    open_session = datetime(2025, 7, 2, 14, 0, tzinfo=UTC)  # six bars have closed, the last one is not known yet
    aapl, msft = shown(exported("bars.csv", as_of=open_session))["symbols"]
    assert aapl["incomplete_sessions"] == [{"session_date": "2025-07-02", "bars": 5, "due": 6}]
    assert msft["sessions_without_bars"] == []


@pytest.mark.parametrize("to", FORMS)
def test_an_export_that_fails_leaves_what_was_there(
    exported: Export, tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    Path(lake.path("MSFT", "2025-07")).write_bytes(b"PAR1 not really")  # MSFT comes after AAPL
    with pytest.raises(BarflowError, match="symbol=MSFT"):
        exported(f"out/{to}")
    assert [*(tmp_path / "out").iterdir()] == []
    exported(f"out/{to}", symbols=("AAPL",))
    before = contents(tmp_path / "out")
    with pytest.raises(BarflowError, match="symbol=MSFT"):
        exported(f"out/{to}", force=True)
    monkeypatch.setattr("barflow.lake.export.manifest_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        exported(f"out/{to}", symbols=("AAPL",), force=True, as_of=NOW)
    assert contents(tmp_path / "out") == before


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("to", FORMS)
def test_an_export_is_replaced_only_by_force(exported: Export, tmp_path: Path, to: str) -> None:
    exported(f"out/{to}", symbols=("AAPL",))
    before = contents(tmp_path / "out")
    with pytest.raises(BadInputError, match=r"exists; pass --force to replace it"):
        exported(f"out/{to}")
    assert contents(tmp_path / "out") == before
    exported(f"out/{to}", force=True)
    exported(f"other/{to}")
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


def test_a_target_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Target.of("~/bars.csv").path == tmp_path / "bars.csv"
    assert Target.of("~no-such-user/").path == Path("~no-such-user").resolve()


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    target = Target.of(f"{tmp_path}/loop/bars.csv")
    expected = r"could not write .*loop/bars.csv: Too many levels of symbolic links"
    with pytest.raises(BarflowError, match=expected), target.making():
        pass


@pytest.mark.parametrize("to", FORMS)
def test_what_appears_at_the_target_meanwhile_is_kept(exported: Export, tmp_path: Path, to: str) -> None:
    def appear(_: str) -> None:
        (tmp_path / "out" / to).mkdir(exist_ok=True)

    with pytest.raises(BadInputError, match="exists; pass --force"):
        exported(f"out/{to}", on_symbol=appear)
    assert [*(tmp_path / "out").iterdir()] == [tmp_path / "out" / to]


def test_a_folder_that_is_no_export_is_never_replaced(exported: Export, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("mine")
    with pytest.raises(BadInputError, match=r"--force replaces only an export, and this folder has no _manifest.json"):
        exported("home/", force=True)
    assert contents(tmp_path / "home") == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("name", ["bars", "replaced"])
def test_a_killed_export_leaves_nothing_that_the_next_one_keeps(exported: Export, tmp_path: Path, name: str) -> None:
    exported(f"out/{name}/", symbols=("AAPL",))
    before = contents(tmp_path / "out" / name)
    # Killed after it moved the old folder away, and before it moved the new one into place.
    work = tmp_path / f"out/.{name}.part"
    work.mkdir()
    (tmp_path / "out" / name).rename(work / f"{name}.replaced")
    (work / name).mkdir()
    (work / name / "half").write_text("half")
    with pytest.raises(BadInputError, match="no bars of NONE"):
        exported(f"out/{name}/", symbols=("NONE",))
    exported(f"out/{name}/", symbols=("AAPL",), force=True)
    assert (contents(tmp_path / "out" / name), work.exists()) == (before, False)


def test_two_exports_to_one_target_do_not_mix(exported: Export, tmp_path: Path) -> None:
    work = tmp_path / ".bars.csv.part"
    work.mkdir()
    running = os.open(work, os.O_RDONLY)
    fcntl.flock(running, fcntl.LOCK_EX)
    try:
        with pytest.raises(BusyError, match=r"another export writes .*bars.csv now"):
            exported("bars.csv")
    finally:
        os.close(running)
    exported("bars.csv")


@pytest.mark.parametrize(
    ("changed", "to", "message"),
    [
        ({}, "bars.xlsx", r"must end in .csv, .parquet, or / for a folder"),
        (
            {"symbols": ("AAPL", "NOPE", "TYPO")},
            "bars.csv",
            r"the archive /.*/lake has no bars of NOPE, TYPO. Nothing was written",
        ),
        ({"last": date(2025, 6, 29)}, "bars.csv", "end 2025-06-29 is before start 2025-06-30"),
        ({"last": date(2025, 6, 29), "first": date(2025, 6, 28)}, "bars.csv", "no bars of AAPL, MSFT from 2025-06-28"),
        ({"first": date(1999, 7, 1)}, "bars.csv", "no exchange calendar for 1999-07-01"),
        (
            {"as_of": datetime(2025, 6, 30, 13, 35, tzinfo=UTC)},
            "bars.csv",
            "as of 2025-06-30T13:35:00Z, no bars were known of AAPL, MSFT .*: the first one became known at "
            "2025-06-30T13:35:03Z. Nothing was written. Choose a later --as-of",
        ),
    ],
)
def test_an_export_that_cannot_be_says_why(
    exported: Export, tmp_path: Path, changed: dict[str, Any], to: str, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        exported(f"out/{to}", **changed)
    assert [*(tmp_path / "out").iterdir()] == []


def test_an_export_during_a_run_of_process_is_repeatable_only_if_the_archive_was_complete_before(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BARFLOW_LAKE_URI", lake.root)

    def publish_meanwhile(*given: Any) -> dict[str, Any]:
        monkeypatch.undo()
        correct(lake)
        return manifest_of(*given)

    monkeypatch.setattr("barflow.lake.export.manifest_of", publish_meanwhile)
    asked = {"start": f"{FIRST}", "end": f"{LAST}", "as_of": THEN.isoformat(), "as_json": True}
    for name in ("before", "after"):
        export_command(symbols="AAPL", to=f"{tmp_path / name}.csv", **asked)
        monkeypatch.setenv("BARFLOW_LAKE_URI", lake.root)
    before, after = map(json.loads, capsys.readouterr().out.splitlines())
    assert (before["repeatable"], after["repeatable"]) == (False, True)
