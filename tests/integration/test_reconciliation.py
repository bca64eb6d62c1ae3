"""A check of everything sees every session; a check of what changed sees what the runs did, and costs only that."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from harness import ASKED, random_session
from psycopg.types.json import Jsonb
from pymongo.database import Database

from barflow.cli.main import main
from barflow.errors import BarflowError
from barflow.lake.manifest_files import compact, ids_until
from barflow.lake.manifests import Manifest, Partition, manifest_id
from barflow.lake.partitions import Lake
from barflow.market.arrow import arrow_schema
from barflow.market.bars import BAR_TABLES, OF_A_BAR, SessionBars
from barflow.market.sessions import sessions_between, utc_now
from barflow.operations import expiry
from barflow.pipeline import hop_counts, reconciliation
from barflow.pipeline.reconciliation import collect, examine, reconcile, reconcile_daily, waiting_for
from barflow.pipeline.status import SymbolStatus
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.staging.connection import Document
from barflow.staging.ledger import SUCCEEDED, Ledger
from barflow.staging.sessions import Staging
from barflow.warehouse.queries import consumed_manifests

NOW = datetime(2025, 7, 31, 21, tzinfo=UTC)
DAYS = [item.session_date for item in sessions_between(datetime(2025, 5, 1).date(), NOW.date())]
OLD, RECENT = DAYS[3].isoformat(), DAYS[-3].isoformat()
DUE = sum(item.expected_bars for item in sessions_between(DAYS[-20], DAYS[-1]))


@dataclass
class Hops:
    """The stores of a test, filled as the hops fill them, without Spark."""

    stores: Stores
    database: Database[Document]
    connection: psycopg.Connection[Any]
    bars: dict[tuple[str, str], SessionBars] = field(default_factory=dict)
    ticks: int = 0

    @property
    def lake(self) -> Lake:
        return Lake(self.stores.settings.require("lake_uri"))

    def run(self, symbol: str, days: Iterable[str], *, bars: int = 10) -> str:
        """Stage sessions of a symbol, publish and load them. Return the run id."""
        run_id = f"{utc_now():%Y%m%dT%H%M%SZ}-process-{self.ticks:06}"
        self.ticks += 1
        days = list(days)
        sessions = [random_session(symbol, day, bars=bars) for day in days]
        self.bars |= {(symbol, item.session_date.isoformat()): item for item in sessions}
        Staging(self.database).save([(item, ASKED) for item in sessions], "test")
        ledger = Ledger(self.database)
        ledger.start("process", run_id, lake=self.lake.uri, symbols=None)
        partitions = []
        for month in sorted({day[:7] for day in days}):
            held = [item for (name, day), item in sorted(self.bars.items()) if name == symbol and day[:7] == month]
            rows = [
                {**{name: getattr(item, name)[slot] for name in OF_A_BAR}, "session_date": item.session_date}
                | {"known_from": ASKED}
                for item in held
                for slot in range(len(item))
            ]
            self.lake.replace(symbol, month, pa.Table.from_pylist(rows, arrow_schema()))
            versions = {day: self._version(symbol, day) for day in days if day[:7] == month}
            partitions.append(Partition(symbol, month, len(rows), versions))
        self.lake.publish(Manifest(run_id, utc_now(), tuple(partitions)))
        ledger.finish(run_id, SUCCEEDED, {symbol: {"rows": 1}}, manifest=run_id)
        for item in sessions:
            self._load(item)
        self.connection.execute(
            "insert into ops.load_run (load_id, manifests, started_at, finished_at, rows, outcome) values "
            "(%s, %s, clock_timestamp(), clock_timestamp(), %s, 'loaded')",
            [f"load-{self.ticks}", [run_id], Jsonb({})],
        )
        return run_id

    def _version(self, symbol: str, day: str) -> int:
        document = self.database["bars"].find_one({"_id": f"{symbol}|5min|{day}"})
        assert document
        return int(document["version"])

    def _load(self, bars: SessionBars) -> None:
        """Load a session: a row per 5-minute bar, and one row in each other table."""
        for table in BAR_TABLES:
            slots, count = (range(len(bars)), 1) if table == "bar_5min" else ([0], len(bars))
            self.connection.execute(
                f"delete from market.{table} where symbol = %s and session_date = %s", [bars.symbol, bars.session_date]
            )
            for slot in slots:
                self.connection.execute(
                    f"insert into market.{table} (symbol, bar_start, session_date, open, high, low, close, volume, "
                    "bar_count, expected_bars, load_id) values (%s, %s, %s, 1, 1, 1, 1, 1, %s, 78, 'test')",
                    [bars.symbol, bars.ts[slot], bars.session_date, count],
                )

    def lose_row(self, symbol: str, day: str) -> None:
        """Delete a row of the warehouse outside of any run."""
        self.connection.execute(
            "delete from market.bar_5min where ctid in (select ctid from market.bar_5min where symbol = %s and "
            "session_date = %s limit 1)",
            [symbol, day],
        )

    def age(self, days: int) -> None:
        """Move every record of a check of everything into the past."""
        moved = self.database["ledger"].find({"hop": "reconcile", "full": True})
        for run in moved:
            earlier = {"started_at": run["started_at"] - timedelta(days=days)}
            self.database["ledger"].update_one({"_id": run["_id"]}, {"$set": earlier})


@pytest.fixture
def hops(
    database: Database[Document], mongodb_uri: str, warehouse_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    settings = {
        "BARFLOW_MONGODB_URI": mongodb_uri,
        "BARFLOW_MONGODB_DATABASE": database.name,
        "BARFLOW_WAREHOUSE_DSN": warehouse_dsn,
        "BARFLOW_LAKE_URI": str(tmp_path / "lake"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    Staging(database).ensure()
    Ledger(database).ensure()
    with psycopg.connect(warehouse_dsn, autocommit=True) as connection:
        yield Hops(Stores(load_settings(), clock=lambda: NOW), database, connection)


def test_a_run_checks_what_it_changed_and_once_a_day_everything_is_checked(hops: Hops) -> None:
    hops.run("AAPL", [OLD, RECENT])
    hops.run("MSFT", [OLD])
    assert {symbol: item.warehouse for symbol, item in reconcile(hops.stores).items()} == {"AAPL": 20, "MSFT": 10}
    hops.database["bars"].update_many({}, {"$set": {"updated_at": utc_now() - timedelta(hours=2)}})
    hops.database["ledger"].update_many({"hop": "process"}, {"$set": {"finished_at": utc_now() - timedelta(hours=2)}})
    hops.connection.execute("update ops.load_run set finished_at = now() - interval '2 hours'")
    assert reconcile(hops.stores) == {}, "nothing changed, so nothing is counted"

    hops.lose_row("MSFT", OLD)
    assert reconcile(hops.stores) == {}, "no run changed it"
    assert reconcile_daily(hops.stores) is None, "it is not due"
    hops.run("AAPL", [DAYS[-2].isoformat()])
    hops.lose_row("AAPL", DAYS[-2].isoformat())
    with pytest.raises(BarflowError, match=r"reconcile: AAPL 2025-07-30: 10 bars staged, bar_5min 9\. Nothing"):
        reconcile(hops.stores)
    with pytest.raises(BarflowError, match=r"AAPL 2025-07-30"):
        reconcile(hops.stores)  # until it reconciles
    hops.run("AAPL", [DAYS[-2].isoformat()])
    assert reconcile(hops.stores)["AAPL"].warehouse == 10

    hops.age(2)
    with pytest.raises(BarflowError, match=rf"MSFT {OLD}: 10 bars staged, bar_5min 9"):
        reconcile_daily(hops.stores)
    hops.run("MSFT", [OLD])
    everything = reconcile_daily(hops.stores)
    assert everything
    assert [item.warehouse for item in everything.values()] == [30, 10]
    assert reconcile_daily(hops.stores) is None


def test_what_waits_is_checked_by_the_run_that_loads_it(hops: Hops) -> None:
    hops.run("AAPL", [OLD])
    reconcile(hops.stores)
    hops.run("AAPL", [RECENT])
    hops.lose_row("AAPL", RECENT)
    loads = hops.connection.execute("delete from ops.load_run where load_id = 'load-2' returning manifests").fetchone()
    assert loads
    assert reconcile(hops.stores)["AAPL"].pending == 1
    hops.database["bars"].update_many({}, {"$set": {"updated_at": utc_now() - timedelta(hours=2)}})
    hops.database["ledger"].update_many({"hop": "process"}, {"$set": {"finished_at": utc_now() - timedelta(hours=2)}})
    hops.connection.execute(
        "insert into ops.load_run (load_id, manifests, started_at, finished_at, rows, outcome) values "
        "('late', %s, now(), clock_timestamp(), '{}', 'loaded')",
        [loads[0]],
    )
    with pytest.raises(BarflowError, match=f"AAPL {RECENT}"):
        reconcile(hops.stores)


@pytest.mark.parametrize("check", [reconcile, collect])
def test_a_session_staged_during_a_check_is_no_difference(
    hops: Hops, check: Callable[[Stores], dict[str, SymbolStatus]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hops.run("AAPL", [OLD])
    reconcile(hops.stores)
    hops.run("AAPL", [RECENT])

    def plan_first(*arguments: Any) -> Any:
        waiting = waiting_for(*arguments)
        Staging(hops.database).save([(random_session("AAPL", DAYS[-1].isoformat(), bars=10), ASKED)], "test")
        return waiting

    monkeypatch.setattr(reconciliation, "waiting_for", plan_first)
    assert [status.broken for status in check(hops.stores).values()] == [[]]


def test_a_correction_staged_while_sessions_expire_stays(hops: Hops, monkeypatch: pytest.MonkeyPatch) -> None:
    hops.run("AAPL", [OLD, RECENT])
    monkeypatch.setattr(expiry, "_days_kept", lambda stores: 30)

    def correct_first(*arguments: Any) -> Any:
        corrected = {"$inc": {"version": 1}, "$set": {"updated_at": utc_now()}}
        hops.database["bars"].update_one({"session_date": OLD}, corrected)
        return hop_counts.groups(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(expiry, "groups", correct_first)
        assert expiry.expire_staging(hops.stores, NOW) == 0
    hops.database["bars"].update_one({"session_date": OLD}, {"$inc": {"version": -1}})
    hops.database["ledger"].update_many({"hop": "process"}, {"$set": {"finished_at": utc_now()}})
    assert expiry.expire_staging(hops.stores, NOW) == 1
    assert [document["session_date"] for document in hops.database["bars"].find()] == [RECENT]


def test_status_counts_recent_sessions_and_everything_on_demand(
    hops: Hops, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(*arguments: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["barflow", "status", "--json", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    hops.run("AAPL", [OLD, *(day.isoformat() for day in DAYS[-30:])], bars=78)
    hops.run("GONE", [OLD, DAYS[4].isoformat()], bars=78)
    hops.run("NEW", [DAYS[-2].isoformat(), DAYS[-1].isoformat()], bars=78)
    full = examine(hops.stores)
    assert (full.since, full.found["AAPL"].sessions, full.broken) == (None, 31, [])
    assert full.found["AAPL"].missing_bars == 78 * (len(DAYS) - 4 - 30)
    hops.database["bars"].update_many({}, {"$set": {"updated_at": utc_now() - timedelta(hours=2)}})
    hops.database["ledger"].update_many({"hop": "process"}, {"$set": {"finished_at": utc_now() - timedelta(hours=2)}})
    hops.connection.execute("update ops.load_run set finished_at = now() - interval '2 hours'")

    seen = examine(hops.stores)
    assert (seen.since, seen.broken) == (DAYS[-20], [])
    assert seen.full_at == full.full_at
    assert {symbol: item.warehouse for symbol, item in seen.found.items()} == {
        "AAPL": DUE, "GONE": 78, "NEW": 2 * 78
    }  # fmt: skip
    assert {symbol: item.newest_staged for symbol, item in seen.found.items()} == {
        symbol: item.newest_staged for symbol, item in full.found.items()
    }
    assert {symbol: item.missing_bars for symbol, item in seen.found.items()} == {
        "AAPL": 0, "GONE": DUE, "NEW": 0
    }  # fmt: skip
    assert seen.to_json()["counted_since"] == DAYS[-20].isoformat()
    assert "`barflow status --full` counts every session" in seen.describe()

    hops.lose_row("AAPL", OLD)
    assert examine(hops.stores).broken == []
    code, shown = status("--full")
    assert (code, shown["counted_since"], shown["symbols"]["AAPL"]["sessions"]) == (1, None, 31)
    code, shown = status()
    assert (code, shown["broken"], shown["counted_since"] > RECENT) == (0, False, True)
    hops.lose_row("AAPL", RECENT)
    assert examine(hops.stores).broken == [f"AAPL {RECENT}: 78 bars staged, bar_5min 77"]


def test_a_check_of_everything_counts_a_group_at_a_time(hops: Hops, monkeypatch: pytest.MonkeyPatch) -> None:
    for symbol in ("AAPL", "BRK.B", "MSFT", "ZION"):
        hops.run(symbol, [OLD, RECENT])
    hops.lose_row("MSFT", OLD)
    whole = collect(hops.stores)
    monkeypatch.setattr(hop_counts, "SESSIONS_PER_GROUP", 1)
    monkeypatch.setattr("barflow.lake.partitions.FILES_PER_COUNT", 1)
    groups: list[list[str]] = []
    take = hop_counts.LakeStream.take
    monkeypatch.setattr(
        hop_counts.LakeStream, "take", lambda stream, names: groups.append(list(names)) or take(stream, names)
    )
    assert collect(hops.stores) == whole
    assert groups == [["AAPL"], ["BRK.B"], ["MSFT"], ["ZION"]]
    assert [item.broken for item in whole.values()] == [[], [], [f"{OLD}: 10 bars staged, bar_5min 9"], []]


def test_the_last_runs_of_the_archive_are_found_among_files_days_and_slices(hops: Hops) -> None:
    lake = hops.lake
    waiting, first, second, last = (f"20250{day}T110000Z-process-a" for day in ("701", "702", "703", "901"))
    for run_id in (waiting, first, second, last):
        lake.publish(Manifest(run_id, datetime(2025, 7, 1, tzinfo=UTC), ()))
    assert compact(lake, lambda ids: {first, second} & {*ids}, utc_now()) == 2
    until = datetime(2025, 7, 15, tzinfo=UTC)
    found = {runs: ids_until(lake, until, runs) for runs in (1, 2, 3, 4)}
    assert found == {1: [second], 2: [first, second], 3: [waiting, first, second], 4: [waiting, first, second]}
    for number in range(1, 9):
        lake.publish(Manifest(manifest_id(second.replace("703", "704"), number), until, ()))
    slices = ids_until(lake, until, 2)
    assert (len(slices), slices[0]) == (9, second)


def test_old_manifests_move_to_the_file_of_their_day_and_stay_readable(hops: Hops) -> None:
    lake = hops.lake
    old = [f"20250702T10000{second}Z-process-{second}" for second in range(4)]
    for run_id in [*old, "20250703T100000Z-process-a", "by-hand"]:
        made = datetime(2025, 7, 2, 10, tzinfo=UTC)
        lake.publish(Manifest(run_id, made, (Partition("AAPL", "2025-07", 1, {"2025-07-02": 3}),), complete_until=made))
    newest = hops.run("AAPL", [RECENT])
    before = {run_id: lake.manifest(run_id) for run_id in lake.manifest_ids()}
    consumed = {*old[:3], "20250703T100000Z-process-a", newest, "by-hand"}
    hops.connection.execute(
        "insert into ops.load_run (load_id, manifests, started_at, finished_at, rows, outcome) values "
        "('x', %s, now(), now(), '{}', 'loaded'), ('y', %s, now(), now(), '{}', 'failed')",
        [sorted(consumed), [old[3]]],
    )

    def loaded(ids: Any) -> set[str]:
        return consumed_manifests(hops.connection, ids)

    assert loaded(list(before)) == consumed
    assert compact(lake, loaded, datetime(2025, 7, 3, tzinfo=UTC)) == 3
    assert lake.manifest_ids() == [old[3], "20250703T100000Z-process-a", newest, "by-hand"]
    consumed.add(old[3])
    hops.connection.execute("update ops.load_run set outcome = 'loaded'")
    assert compact(lake, loaded, utc_now()) == 2
    assert lake.manifest_ids() == [newest, "by-hand"]
    assert compact(lake, loaded, utc_now()) == 0
    assert {run_id: lake.manifest(run_id) for run_id in before} == before
    with pytest.raises(BarflowError, match=r"20250702T999999Z-x\.json cannot be read"):
        lake.manifest("20250702T999999Z-x")
    day = Path(lake.root, "manifests", "days", "20250702.jsonl.gz")
    whole = day.read_bytes()
    for damaged in (b"damaged", whole[:20], whole[:20] + b"damaged" + whole[27:]):
        day.write_bytes(damaged)
        with pytest.raises(BarflowError, match=r"20250702\.jsonl\.gz cannot be read: .*Restore its previous version"):
            lake.manifest(old[0])
