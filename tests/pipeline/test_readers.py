"""Readers see the old data until a load commits, also when a connection, a task, a disk or MongoDB fails first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from gate import Gate
from harness import AGGREGATE, PROCESS, Pipeline, ProgramResult, random_session

from barflow.warehouse import load
from barflow.warehouse.load import TABLES
from rehearsal.oracle import Oracle, disagreements

DAYS = ("2025-07-02", "2025-07-03")
OLD = [random_session(symbol, day) for symbol in ("AAPL", "MSFT") for day in DAYS]
NEW = [random_session("AAPL", day, seed=1) for day in ("2025-07-02", "2025-07-07")]
AFTER = [*OLD[1:], *NEW]


@pytest.fixture
def published(pipeline: Pipeline) -> Pipeline:
    """Return a pipeline with loaded days. One revised day and one new day are published but not loaded."""
    pipeline.stage(OLD)
    pipeline.process()
    pipeline.aggregate()
    pipeline.stage(NEW)
    pipeline.process()
    return pipeline


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
        ("load.bar_1h", "stage the rows of a task"),
        ("market.bar_5min", "commit the load"),
        ("market.daily_metrics", "commit the load"),
    ],
)
def test_a_load_whose_connection_the_server_ends_changes_nothing(published: Pipeline, table: str, step: str) -> None:
    before = published.warehouse()
    with Gate(published.warehouse_dsn, table) as gate:
        loading = Background(published, AGGREGATE)
        gate.terminate()
        if table.startswith("load."):
            gate.terminate()  # the second attempt of the task
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
    check = load.Load.check

    def late(self: load.Load, keys: load.Keys) -> None:
        check(self, keys)
        with psycopg.connect(published.warehouse_dsn, autocommit=True) as server:
            server.execute("select pg_terminate_backend(%s)", [self.connection.info.backend_pid])

    monkeypatch.setattr(load.Load, "check", late)
    ran = published.run(AGGREGATE)
    assert (ran.code, "the warehouse could not commit the load" in ran.error) == (1, True)
    assert published.warehouse() == before
    monkeypatch.undo()
    assert published.aggregate()["outcome"] == "loaded"


def test_a_task_that_ran_twice_loads_no_row_twice(published: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt copies all its rows and fails before it reports them. The second copies them again."""
    copy = load.copy_batches

    def lost(dsn: str, statement: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        done = [*copy(dsn, statement, batches)]
        if TaskContext.get().attemptNumber() == 0:
            raise RuntimeError("the executor is lost")
        yield from done

    monkeypatch.setattr(load, "copy_batches", lost)
    staged: list[int] = []
    check = load.Load.check

    def counted(self: load.Load, keys: load.Keys) -> None:
        staged.extend(self.connection.execute("select count(*) from load.bar_5min").fetchone() or ())
        check(self, keys)

    monkeypatch.setattr(load.Load, "check", counted)
    result = published.aggregate()
    assert staged == [2 * result["rows"]["bar_5min"]], "every task ran twice"
    assert disagreements(published.warehouse_dsn, Oracle.of_sessions(AFTER)) == {}


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
