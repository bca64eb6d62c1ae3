"""datacontract-cli finds the contract met by what a demo stored, and finds every fault that is planted in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from commands import Replayed
from data_contracts import check, in_environment, written

from barflow.lake.actions import SCHEMA, actions_path
from barflow.lake.partitions import Lake
from barflow.market.arrow import history_schema
from tools.data_contract import PUBLISHED, TABLES

CONTRACT: dict[str, Any] = yaml.safe_load(PUBLISHED.read_text())
KNOWN = datetime(2026, 1, 2, tzinfo=UTC)
ACTIONS = [
    {"kind": "split", "ratio": 10.0, "amount": None, "currency": None},
    {"kind": "dividend", "ratio": None, "amount": 0.25, "currency": "USD"},
]

# The faults are the same in each recording.
ONE_RECORDING = pytest.mark.parametrize("replayed", ["synthetic"], indirect=True, scope="session")


@pytest.fixture
def lake(replayed: Replayed, tmp_path: Path) -> Lake:
    """Return a copy of the demo's lake, with a history and with actions as Barflow writes them."""
    copied = Lake(str(shutil.copytree(replayed.state / "lake", tmp_path / "lake")))
    symbol, month, _ = next(iter(copied.partitions()))
    bars = copied.read(symbol, month)
    assert bars is not None
    until = pa.array([known + timedelta(minutes=5) for known in bars["known_from"].to_pylist()])
    history = bars.append_column("known_until", until).cast(history_schema())
    known = {"ex_date": date(2025, 7, 2), "source": "endpoint", "known_from": KNOWN, "known_until": None}
    versions = pa.Table.from_pylist([{**known, **action} for action in ACTIONS], SCHEMA)
    for path, table in ((copied.history_path(symbol, month), history), (actions_path(copied, symbol), versions)):
        copied.stage_file("test", path, table)
        copied.promote_files("test", [path])
    return copied


@pytest.fixture
def planted(replayed: Replayed) -> Iterator[psycopg.Cursor[Any]]:
    """Yield a cursor on copies of the demo's tables, without their constraints, in the schema planted."""
    with psycopg.connect(replayed.stores.warehouse_dsn, autocommit=True) as connection:
        cursor = connection.execute("drop schema if exists planted cascade; create schema planted")
        for name in TABLES:
            cursor.execute(f"create table planted.{name} as select * from market.{name}")
        cursor.execute("truncate planted.corporate_action")
        for action in ACTIONS:
            cursor.execute(
                "insert into planted.corporate_action values ('AAPL', %(kind)s, '2025-07-02', %(ratio)s, %(amount)s, "
                "%(currency)s, 'endpoint', '2026-01-02 00:00+00', null, 'a load')",
                action,
            )
        yield cursor
        cursor.execute("drop schema planted cascade")


@pytest.fixture
def contract_of_planted(tmp_path: Path) -> Path:
    """Return the contract with the warehouse in the schema planted."""
    servers = [{**it, "schema": "planted"} if it["server"] == "warehouse" else it for it in CONTRACT["servers"]]
    return written(tmp_path, "planted", {**CONTRACT, "servers": servers})


def rule(table: str, name: str) -> tuple[str, str, str]:
    """Return how datacontract-cli reports a rule of the contract."""
    rules = next(it for it in CONTRACT["schema"] if it["name"] == table)["quality"]
    return table, next(it["description"] for it in rules if it["name"] == name), "model_quality_sql"


def failed(ended: Any) -> set[tuple[str, str, str]]:
    """Return table, column or rule, and kind of each check that did not pass."""
    assert ended.returncode in (0, 1), ended.stderr
    checks = json.loads(ended.stdout)["checks"]
    assert len(checks) > 100
    found = {(it["model"], it["field"] or it["name"], it["type"]) for it in checks if it["result"] != "passed"}
    assert ended.returncode == (1 if found else 0)
    return found


def rewrite(path: Path, change: Any) -> None:
    table = pq.ParquetFile(path).read()
    pq.write_table(change(table.cast(pa.schema([field.with_nullable(True) for field in table.schema]))), path)


def replace(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def test_what_a_demo_stored_meets_the_contract_except_its_age(replayed: Replayed, lake: Lake) -> None:
    """The recording is old, so only the newest bar is not as promised."""
    stores = {"BARFLOW_LAKE_URI": lake.root, "BARFLOW_WAREHOUSE_DSN": replayed.stores.warehouse_dsn}
    assert failed(check("test", "--json", **stores)) == {
        ("bars_5min", "ts", "servicelevel_freshness"),
        ("bar_5min", "bar_start", "servicelevel_freshness"),
    }


@ONE_RECORDING
def test_every_fault_in_the_lake_is_found(lake: Lake) -> None:
    (first, month, path), (_, _, other), *_ = lake.partitions()
    bars, others = Path(path), Path(other)

    def null(table: pa.Table) -> pa.Table:
        volumes = table["volume"].to_pylist()
        return replace(table, "volume", pa.array([None, *volumes[1:]], pa.int64()))

    def impossible_high(table: pa.Table) -> pa.Table:
        highs = table["high"].to_pylist()
        return replace(table, "high", pa.array([highs[0] / 2, *highs[1:]]))

    def row_twice(table: pa.Table) -> pa.Table:
        return pa.concat_tables([table, table.slice(1, 1)])

    def wrong_day(table: pa.Table) -> pa.Table:
        days = table["session_date"].to_pylist()
        return replace(table, "session_date", pa.array([days[0] + timedelta(days=40), *days[1:]]))

    def later_version(table: pa.Table) -> pa.Table:
        known = pc.add(table["known_from"], pa.scalar(timedelta(hours=1)))
        later = replace(table, "known_from", known)
        return pa.concat_tables([table, replace(later, "known_until", pc.add(known, pa.scalar(timedelta(hours=1))))])

    rewrite(bars, lambda table: row_twice(wrong_day(impossible_high(null(table)))))
    rewrite(others, lambda table: replace(table, "ts", pc.add(table["ts"], pa.scalar(timedelta(minutes=1)))))
    history = Path(lake.history_path(first, month))
    rewrite(history, lambda table: replace(table, "volume", table["volume"].cast(pa.float64())))
    rewrite(history, lambda table: replace(table, "known_until", table["known_from"]))
    rewrite(history, later_version)
    rewrite(Path(actions_path(lake, first)), lambda table: table.drop_columns("source"))
    found = failed(check("test", "--json", "--no-freshness", BARFLOW_LAKE_URI=lake.root))
    assert found == {
        ("bars_5min", "volume", "field_required"),
        rule("bars_5min", "enclosed"),
        ("bars_5min", "Check that primary key (symbol, ts) has no duplicate values", "primary_key_unique"),
        rule("bars_5min", "on_the_grid"),
        rule("bars_5min", "session_date"),
        rule("bars_5min", "month"),
        ("bars_5min_history", "volume", "file_type"),
        rule("bars_5min_history", "known"),
        rule("bars_5min_history", "no_gap"),
        ("corporate_actions", "source", "file_type"),
        ("corporate_actions", "source", "field_is_present"),
        ("corporate_actions", "source", "field_type"),
        ("corporate_actions", "source", "field_enum"),
        ("corporate_actions", "source", "field_required"),
    }


@ONE_RECORDING
def test_every_fault_in_the_warehouse_is_found(
    replayed: Replayed, planted: psycopg.Cursor[Any], contract_of_planted: Path
) -> None:
    one = "ctid = (select min(ctid) from planted.{0})"
    for statement in (
        f"update planted.bar_5min set volume = null where {one.format('bar_5min')}",
        f"update planted.bar_30min set bar_count = expected_bars + 1 where {one.format('bar_30min')}",
        "alter table planted.bar_30min alter column volume type double precision",
        "insert into planted.bar_5min select * from planted.bar_5min limit 1",
        f"update planted.bar_1h set bar_start = bar_start + interval '9 hours' where {one.format('bar_1h')}",
        f"update planted.bar_1d set high = low / 2 where {one.format('bar_1d')}",
        "alter table planted.daily_metrics drop column rsi_14",
        "update planted.corporate_action set kind = 'merger' where kind = 'split'",
    ):
        planted.execute(statement)
    stores = {"BARFLOW_WAREHOUSE_DSN": replayed.stores.warehouse_dsn}
    found = failed(check("--contract", contract_of_planted, "test", "--json", "--no-freshness", **stores))
    assert found == {
        ("bar_5min", "volume", "field_required"),
        ("bar_30min", "volume", "field_physical_type"),
        rule("bar_30min", "counted"),
        rule("bar_30min", "complete"),
        ("bar_5min", "Check that primary key (symbol, bar_start) has no duplicate values", "primary_key_unique"),
        rule("bar_1h", "in_session"),
        rule("bar_1d", "enclosed"),
        ("daily_metrics", "rsi_14", "field_is_present"),
        ("daily_metrics", "rsi_14", "field_physical_type"),
        ("daily_metrics", "rsi_14", "field_minimum"),
        ("daily_metrics", "rsi_14", "field_maximum"),
        ("corporate_action", "kind", "field_enum"),
        rule("corporate_action", "value"),
    }


@ONE_RECORDING
def test_datacontract_cli_alone_tests_a_table_of_the_contract(replayed: Replayed) -> None:
    """A reader without this repository's program tests one table at a time."""
    folder = replayed.state.parent
    (folder / ".barflow").symlink_to(replayed.state)
    arguments = ["test", PUBLISHED, "--server", "lake", "--schema-name", "bars_5min", "--checks", "schema,quality"]
    program = "import os, sys; os.chdir(sys.argv.pop(1)); from datacontract.cli import app; app()"
    ended = in_environment("-c", program, folder, *arguments)
    (folder / ".barflow").unlink()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "failed" not in ended.stdout


def test_a_store_that_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    partition = tmp_path / "bars_5min" / "symbol=AAPL" / "month=2025-07"
    partition.mkdir(parents=True)
    (partition / "bars.parquet").write_text("no Parquet")
    for settings, message in (
        ({"BARFLOW_LAKE_URI": "s3://bucket/lake"}, "s3://bucket/lake is no folder. Set BARFLOW_LAKE_URI to the folder"),
        ({"BARFLOW_LAKE_URI": tmp_path}, "Cannot test the lake: "),
        ({"BARFLOW_WAREHOUSE_DSN": "postgresql://u:secret@127.0.0.1:1/barflow"}, "Cannot test the warehouse: "),
        ({"BARFLOW_WAREHOUSE_DSN": "a secret"}, "BARFLOW_WAREHOUSE_DSN is no DSN."),
    ):
        ended = check("test", **settings)
        assert (ended.returncode, ended.stdout) == (1, ""), ended.stdout
        assert ended.stderr.startswith(f"error: {message}"), ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert "secret" not in ended.stderr
