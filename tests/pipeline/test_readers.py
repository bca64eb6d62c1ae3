"""Readers see the old data until a load commits, also when a connection, a task, a disk or MongoDB fails first."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pytest
from gate import Gate
from harness import AGGREGATE, PROCESS, Pipeline, ProgramResult, random_session

from barflow.errors import BarflowError
from barflow.pipeline import aggregate, load_plan
from barflow.warehouse import load
from barflow.warehouse.load import TABLES
from rehearsal.oracle import Oracle, disagreements

DAYS = ("2025-07-02", "2025-07-03")
OLD = [random_session(symbol, day) for symbol in ("AAPL", "MSFT") for day in DAYS]
NEW = [random_session("AAPL", day, seed=1) for day in ("2025-07-02", "2025-07-07")]
AFTER = [*OLD[1:], *NEW]


def publish(pipeline: Pipeline) -> Pipeline:
    """Load days into a pipeline. One revised day and one new day are published but not loaded."""
    pipeline.stage(OLD)
    pipeline.process()
    pipeline.aggregate()
    pipeline.stage(NEW)
    pipeline.process()
    return pipeline


@pytest.fixture(scope="module")
def once_published(
    mongodb_uri: str, module_warehouse_dsn: str, spark: None, tmp_path_factory: pytest.TempPathFactory
) -> Pipeline:
    """Return the pipeline of ``publish``. No test changes it."""
    lake = str(tmp_path_factory.mktemp("readers") / "lake")
    return publish(Pipeline(mongodb_uri, f"readers_{uuid4().hex[:8]}", module_warehouse_dsn, lake))


@pytest.fixture
def published(once_published: Pipeline, copy_warehouse: Callable[[str], str], tmp_path: Path) -> Pipeline:
    """Return the pipeline of ``publish`` with a lake and a warehouse of its own, to aggregate."""
    lake = str(shutil.copytree(once_published.lake_uri, tmp_path / "lake"))
    return replace(once_published, warehouse_dsn=copy_warehouse(once_published.warehouse_dsn), lake_uri=lake)


class Background:
    """A program of a pipeline that runs in a thread beside the test."""

    def __init__(self, pipeline: Pipeline, program: str) -> None:
        self._ran: list[ProgramResult] = []
        self._thread = threading.Thread(target=lambda: self._ran.append(pipeline.run(program)))
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> ProgramResult:
        self._thread.join()
        return self._ran[0]


def snapshot(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    """Return all tables as one reader sees them in one snapshot."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        return {table: connection.execute(f"select * from market.{table} order by 1, 2").fetchall() for table in TABLES}


def test_a_reader_sees_the_old_data_or_the_new_and_never_a_mixture(published: Pipeline) -> None:
    seen: list[dict[str, list[Any]]] = []
    with psycopg.connect(published.warehouse_dsn) as reader:
        with Gate(published.warehouse_dsn, "market.daily_metrics") as gate:
            loading = Background(published, AGGREGATE)
            seen.append(snapshot(reader))
            gate.wait()  # four tables are replaced in the open transaction
            seen.append(snapshot(reader))
        while loading.running:
            seen.append(snapshot(reader))
        assert loading.result().code == 0
        last = snapshot(reader)
    assert seen[0] == seen[1] != last
    assert [found for found in seen if found not in (seen[0], last)] == []
    assert disagreements(published.warehouse_dsn, Oracle.of_sessions(AFTER)) == {}


@pytest.mark.parametrize(
    ("table", "step"),
    [
        ("market.bar_1h", "commit the load"),
        ("market.bar_5min", "commit the load"),
        ("market.daily_metrics", "commit the load"),
    ],
)
def test_a_load_whose_connection_the_server_ends_changes_nothing(published: Pipeline, table: str, step: str) -> None:
    before = published.warehouse()
    with Gate(published.warehouse_dsn, table) as gate:
        loading = Background(published, AGGREGATE)
        gate.terminate()
    ran = loading.result()
    assert ran.code == 1
    assert f"the warehouse could not {step}: " in ran.error
    assert "terminating connection due to administrator command. What it held before is unchanged." in ran.error
    assert published.warehouse() == before
    *_, (_, _, _, _, _, outcome, error) = published.rows("ops.load_run")
    assert (outcome, error) == ("failed", ran.error)

    assert published.aggregate()["outcome"] == "loaded"
    assert disagreements(published.warehouse_dsn, Oracle.of_sessions(AFTER)) == {}


def test_a_load_whose_own_connection_breaks_before_the_commit_changes_nothing(
    published: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server frees the lock with the connection, so this load must not commit after another one started."""
    before = published.warehouse()
    commit = load.Load.commit

    def late(self: load.Load, *arguments: Any) -> load.Loaded:
        with psycopg.connect(published.warehouse_dsn, autocommit=True) as server:
            server.execute("select pg_terminate_backend(%s)", [self.connection.info.backend_pid])
        return commit(self, *arguments)

    monkeypatch.setattr(load.Load, "commit", late)
    ran = published.run(AGGREGATE)
    assert (ran.code, "the warehouse could not commit the load" in ran.error) == (1, True)
    assert published.warehouse() == before
    monkeypatch.undo()
    assert published.aggregate()["outcome"] == "loaded"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda rows: rows.slice(1), "bar_1h: 14 rows were computed and 13 arrived. Nothing more was loaded"),
        (lambda rows: rows.set_column(9, "bar_count", pa.repeat(1, len(rows)).cast("int16")), "hold the same bars"),
    ],
    ids=["a row is lost", "a row has fewer bars"],
)
def test_rows_that_change_between_spark_and_the_warehouse_are_not_loaded(
    published: Pipeline, monkeypatch: pytest.MonkeyPatch, change: Callable[[pa.Table], pa.Table], error: str
) -> None:
    """A lost executor computes its rows again, maybe from newer files."""
    before = published.warehouse()
    slices = aggregate.arrow_slices

    def changed(tables: Any) -> Iterator[tuple[str, pa.Table]]:
        for name, rows in slices(tables):
            yield name, change(rows) if name == "bar_1h" else rows

    monkeypatch.setattr(aggregate, "arrow_slices", changed)
    ran = published.run(AGGREGATE)
    assert (ran.code, error in ran.error) == (1, True), ran.error
    assert published.warehouse() == before


def test_a_run_loads_its_manifests_in_slices(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each slice is one transaction with a ledger row, also when the run fails at a later one."""
    published = publish(pipeline)
    monkeypatch.setattr(load_plan, "SLICE_SESSIONS", 2)
    published.stage([random_session("MSFT", "2025-07-08")])
    published.process()
    arrow, seen = aggregate.arrow_slices, []

    def failing(tables: Any) -> Iterator[tuple[str, pa.Table]]:
        seen.append(tables)
        if len(seen) == 2:
            raise BarflowError("planted")
        yield from arrow(tables)

    with monkeypatch.context() as patch:
        patch.setattr(aggregate, "arrow_slices", failing)
        ran = published.run(AGGREGATE, "--run-id", "run-1")
    assert (ran.code, ran.error) == (1, "planted")
    ledger = {row[0]: row[5] for row in published.rows("ops.load_run")}
    assert (ledger["run-1"], ledger["run-1-slice-2"]) == ("loaded", "failed")
    (first,) = [manifests for load_id, manifests, *_ in published.rows("ops.load_run") if load_id == "run-1"]
    assert len(first) == 1
    assert published.aggregate()["manifests"] == 1
    result = published.aggregate("--full", "--run-id", "run-2")
    assert (result["sessions"], result["rows"]["bar_1d"], result["run_id"]) == (6, 6, "run-2")
    assert {row[0] for row in published.rows("ops.load_run")} >= {"run-2", "run-2-slice-2"}

    def first_plan(*arguments: Any) -> Iterator[load_plan.Plan]:
        yield next(load_plan.plan_full(*arguments))
        raise BarflowError("no second plan")

    with monkeypatch.context() as patch:
        patch.setattr(aggregate, "plan_full", first_plan)
        assert published.run(AGGREGATE, "--full", "--run-id", "run-3").error == "no second plan"
    ledger = {row[0]: row[5] for row in published.rows("ops.load_run")}
    assert (ledger["run-3"], ledger["run-3-slice-2"]) == ("loaded", "failed")
    after = [*AFTER, random_session("MSFT", "2025-07-08")]
    assert disagreements(published.warehouse_dsn, Oracle.of_sessions(after)) == {}


def test_a_full_disk_of_the_warehouse_changes_nothing(published: Pipeline) -> None:
    disk_full = """
    create function public.raise_disk_full() returns trigger language plpgsql as $$
    begin raise 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$;
    create trigger disk_full before insert on market.bar_1d for each row execute function public.raise_disk_full()
    """
    before = published.warehouse()
    with psycopg.connect(published.warehouse_dsn, autocommit=True) as server:
        server.execute(disk_full)
        ran = published.run(AGGREGATE)
        server.execute("drop function public.raise_disk_full() cascade")
    assert (ran.code, "No space left on device. What it held before is unchanged." in ran.error) == (1, True)
    assert published.warehouse() == before
    assert published.aggregate()["outcome"] == "loaded"


Action = Callable[[], None]


def test_a_mongodb_that_dies_during_process_publishes_nothing(
    pipeline: Pipeline, own_mongo: tuple[str, Action, Action], monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_process import files, run_before_reading

    uri, kill, restart = own_mongo
    pipeline.mongodb_uri = uri
    pipeline.settings["BARFLOW_LEASE_SECONDS"] = "1"
    pipeline.stage(OLD)
    pipeline.process()
    before = files(pipeline.lake)
    pipeline.stage(NEW)
    run_before_reading(monkeypatch, kill)
    ran = pipeline.run(PROCESS)
    assert (ran.code, ran.error.startswith("MongoDB could not be reached:")) == (1, True)
    assert files(pipeline.lake) == before
    monkeypatch.undo()
    restart()
    assert pipeline.process()["sessions"] == 2
    counts = pipeline.counts()
    assert counts["parquet"] == counts["staged"]
