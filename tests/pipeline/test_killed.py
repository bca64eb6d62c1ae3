"""A run that is killed anywhere changes nothing that readers see, or all of it; the next run leaves the state of one
clean run, and nothing else."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from subprocess import Popen
from uuid import uuid4

import psutil
import psycopg
import pytest
from gate import Gate
from harness import AGGREGATE, PROCESS, Pipeline, made_up

from barflow.market.bars import SessionBars
from barflow.market.sessions import sessions_between
from barflow.pipeline.partition_tasks import to_table
from rehearsal.oracle import Oracle, disagreements

INTERRUPTED = Path(__file__).with_name("interrupted.py")
NEW_DAYS = [str(item.session_date) for item in sessions_between(date(2025, 8, 4), date(2025, 8, 29))]


@dataclass
class Running:
    """A pipeline with a past, and every session that it was given."""

    pipeline: Pipeline
    given: dict[tuple[str, date], SessionBars] = field(default_factory=dict)
    deliveries: int = 0

    def news(self) -> None:
        """Stages two revised days and a new one, in two months, of two symbols."""
        self.deliveries += 1
        days = ("2025-07-02", "2025-08-01", NEW_DAYS[self.deliveries])
        made = [made_up(symbol, day, seed=self.deliveries) for symbol in ("AAPL", "MSFT") for day in days]
        self.pipeline.stage(made)
        self.given |= {(bars.symbol, bars.session_date): bars for bars in made}


@pytest.fixture(scope="module")
def running(
    mongodb_uri: str, module_warehouse_dsn: str, spark: None, tmp_path_factory: pytest.TempPathFactory
) -> Running:
    lake = str(tmp_path_factory.mktemp("killed") / "lake")
    # A lease does not outlive a dead run for long.
    found = Running(
        Pipeline(mongodb_uri, f"killed_{uuid4().hex[:8]}", module_warehouse_dsn, lake, {"BARFLOW_LEASE_SECONDS": "1"})
    )
    found.news()
    found.pipeline.process()
    found.pipeline.aggregate()
    return found


def family_of(child: Popen[str]) -> set[psutil.Process]:
    """All that a running program has started: of a dead one they are no longer known."""
    return set(psutil.Process(child.pid).children(recursive=True))


def ends(child: Popen[str], family: set[psutil.Process]) -> None:
    """Waits for a program that is killed, and for all that it had started: `family`, and what it starts meanwhile."""
    while child.poll() is None:
        family |= family_of(child)
        time.sleep(0.05)
    said = child.communicate()[1]
    assert child.returncode == -signal.SIGKILL, said
    assert family, "it had not started Spark"
    assert psutil.wait_procs(family, timeout=60)[1] == []


def archived(pipeline: Pipeline) -> dict[tuple[str, str], list[dict[str, object]]]:
    """Every row of the lake, by partition."""
    found = {}
    for symbol, month, _ in pipeline.lake.partitions():
        table = pipeline.lake.read(symbol, month)
        assert table is not None
        found[symbol, month] = table.drop_columns("revision").to_pylist()
    return found


def check_end_state(running: Running) -> None:
    """That every store holds what was given, and nothing is left of the run that died."""
    pipeline = running.pipeline
    expected: dict[tuple[str, str], list[dict[str, object]]] = {}
    for bars in sorted(running.given.values(), key=lambda bars: bars.session_date):
        columns = {name: getattr(bars, name) for name in ("ts", "open", "high", "low", "close", "volume", "revision")}
        columns["ts"] = [ts.replace(tzinfo=None) for ts in bars.ts]  # as a task reads them
        rows = to_table([{"symbol": bars.symbol, "session_date": str(bars.session_date), **columns}])
        partition = expected.setdefault((bars.symbol, f"{bars.session_date:%Y-%m}"), [])
        partition += rows.drop_columns("revision").to_pylist()
    assert archived(pipeline) == expected
    assert disagreements(pipeline.warehouse_dsn, Oracle.of_sessions(running.given.values())) == {}
    counts = pipeline.counts()
    assert {hop: found for hop, found in counts.items() if found != counts["staged"]} == {}
    assert [*Path(pipeline.lake.root).glob("_staged/*")] == []
    with psycopg.connect(pipeline.warehouse_dsn) as connection:
        assert connection.execute("select 1 from pg_namespace where nspname = 'load'").fetchone() is None
        taken = connection.execute("select unnest(manifests) from ops.load_run order by 1").fetchall()
    assert [run_id for (run_id,) in taken] == pipeline.lake.manifest_ids()


PROCESS_DIES = {
    "when all is staged and nothing in place": ("after", "barflow.pipeline.process:stage_partitions"),
    "with one partition in place and the others not": ("after", "barflow.lake.partitions:Lake._promote"),
    "between the manifest and the ledger": ("after", "barflow.lake.partitions:Lake.publish"),
}


@pytest.mark.parametrize("point", PROCESS_DIES)
def test_process_killed_anywhere_is_completed_by_the_next_run(running: Running, point: str) -> None:
    running.news()
    pipeline = running.pipeline
    before = pipeline.warehouse(), pipeline.lake.manifest_ids(), archived(pipeline)
    ends(pipeline.start(PROCESS, under=(str(INTERRUPTED), *PROCESS_DIES[point])), set())
    assert pipeline.warehouse() == before[0]
    assert (pipeline.lake.manifest_ids() == before[1]) == (point != "between the manifest and the ledger")
    assert (archived(pipeline) == before[2]) == (point == "when all is staged and nothing in place")
    pipeline.process()
    pipeline.aggregate()
    check_end_state(running)


@pytest.mark.parametrize("table", ["load.bar_30min", "market.bar_1h"], ids=["in a copy", "between copies and commit"])
def test_aggregate_killed_in_the_middle_of_a_write_is_completed_by_the_next_run(running: Running, table: str) -> None:
    running.news()
    pipeline = running.pipeline
    pipeline.process()
    before = pipeline.warehouse()
    with Gate(pipeline.warehouse_dsn, table) as gate:
        child = pipeline.start(AGGREGATE)
        gate.wait()
        family = family_of(child)
        child.kill()
        ends(child, family)
        assert pipeline.warehouse() == before
    assert pipeline.warehouse() == before
    assert pipeline.aggregate()["outcome"] == "loaded"
    check_end_state(running)


def test_aggregate_killed_after_its_commit_has_nothing_left_to_do(running: Running) -> None:
    running.news()
    pipeline = running.pipeline
    pipeline.process()
    ends(pipeline.start(AGGREGATE, under=(str(INTERRUPTED), "after", "barflow.warehouse.load:Load.commit")), set())
    loaded = pipeline.warehouse()
    assert pipeline.aggregate()["outcome"] == "nothing new"
    assert pipeline.warehouse() == loaded
    check_end_state(running)
