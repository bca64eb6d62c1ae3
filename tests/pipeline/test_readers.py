"""Readers see the old data until a load commits, also when a connection, a task, a disk or MongoDB fails before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from gate import Gate
from harness import AGGREGATE, PROCESS, Pipeline, Ran, made_up

from barflow.warehouse import load
from barflow.warehouse.load import TABLES
from rehearsal.oracle import Oracle, disagreements

DAYS = ("2025-07-02", "2025-07-03")
OLD = [made_up(symbol, day) for symbol in ("AAPL", "MSFT") for day in DAYS]
NEW = [made_up("AAPL", day, seed=1) for day in ("2025-07-02", "2025-07-07")]
AFTER = [*OLD[1:], *NEW]


@pytest.fixture
def published(pipeline: Pipeline) -> Pipeline:
    """A warehouse with some days, and a revised and a new one that are published and not loaded."""
    pipeline.stage(OLD)
    pipeline.process()
    pipeline.aggregate()
    pipeline.stage(NEW)
    pipeline.process()
    return pipeline


class Background:
    """Runs a program of a pipeline while the test goes on."""

    def __init__(self, pipeline: Pipeline, program: str) -> None:
        self._ran: list[Ran] = []
        self._thread = threading.Thread(target=lambda: self._ran.append(pipeline.run(program)))
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Ran:
        self._thread.join()
        return self._ran[0]


def snapshot(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    """All tables as one reader sees them at one moment."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        return {table: connection.execute(f"select * from market.{table} order by 1, 2").fetchall() for table in TABLES}


def test_a_reader_sees_the_old_data_or_the_new_and_never_a_mixture(published: Pipeline) -> None:
    seen: list[dict[str, list[Any]]] = []
    with psycopg.connect(published.warehouse_dsn) as reader:
        with Gate(published.warehouse_dsn, "market.daily_metrics") as gate:
            loading = Background(published, AGGREGATE)
            seen.append(snapshot(reader))
            gate.wait()  # four tables are replaced, in a transaction that nobody sees
            seen.append(snapshot(reader))
        while loading.running:
            seen.append(snapshot(reader))
        assert loading.result().code == 0
        last = snapshot(reader)
    assert seen[0] == seen[1] != last
    assert [found for found in seen if found not in (seen[0], last)] == []
    assert disagreements(published.warehouse_dsn, Oracle.of_sessions(AFTER)) == {}


@pytest.mark.parametrize("table", ["load.bar_1h", "market.bar_5min", "market.daily_metrics"])
def test_a_connection_that_the_server_ends_loads_nothing(published: Pipeline, table: str) -> None:
    before = published.warehouse()
    with Gate(published.warehouse_dsn, table) as gate:
        loading = Background(published, AGGREGATE)
        gate.terminate()
        if table.startswith("load."):
            gate.terminate()  # the second attempt of the task
    ran = loading.result()
    assert ran.code == 1
    assert "the warehouse could not take the" in ran.error
    assert "terminating connection due to administrator command. What it held before is unchanged." in ran.error
    assert published.warehouse() == before
    *_, (_, _, _, _, _, outcome, error) = published.rows("ops.load_run")
    assert (outcome, error) == ("failed", ran.error)

    assert published.aggregate()["outcome"] == "loaded"
    assert disagreements(published.warehouse_dsn, Oracle.of_sessions(AFTER)) == {}


def test_the_load_s_own_connection_may_break_between_its_steps(
    published: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock goes with it: no other load may come in between and this one commit after all."""
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


def test_a_task_that_ran_twice_leaves_no_row_twice(published: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first attempt copies all its rows and dies before it can say so; the second copies them again."""
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


def test_a_full_disk_of_the_warehouse_loads_nothing(published: Pipeline) -> None:
    refuse = """
    create function public.refuse() returns trigger language plpgsql as $$
    begin raise 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$;
    create trigger refuse before insert on market.bar_1d for each row execute function public.refuse()
    """
    before = published.warehouse()
    with psycopg.connect(published.warehouse_dsn, autocommit=True) as server:
        server.execute(refuse)
        ran = published.run(AGGREGATE)
        server.execute("drop function public.refuse() cascade")
    assert (ran.code, "No space left on device. What it held before is unchanged." in ran.error) == (1, True)
    assert published.warehouse() == before
    assert published.aggregate()["outcome"] == "loaded"


Act = Callable[[], None]


def test_a_mongodb_that_dies_during_process_publishes_nothing(
    pipeline: Pipeline, own_mongo: tuple[str, Act, Act], monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_process import before_reading, files

    uri, kill, restart = own_mongo
    pipeline.mongodb_uri = uri
    pipeline.settings["BARFLOW_LEASE_SECONDS"] = "1"
    pipeline.stage(OLD)
    pipeline.process()
    before = files(pipeline.lake)
    pipeline.stage(NEW)
    before_reading(monkeypatch, kill)
    ran = pipeline.run(PROCESS)
    assert (ran.code, ran.error.startswith("MongoDB could not be reached:")) == (1, True)
    assert files(pipeline.lake) == before
    monkeypatch.undo()
    restart()
    assert pipeline.process()["sessions"] == 2
    counts = pipeline.counts()
    assert counts["parquet"] == counts["staged"]
