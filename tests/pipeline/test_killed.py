"""Killed runs: readers see all of a killed run's changes or none, and the next run completes its work.

The end state equals that of one clean run.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from subprocess import Popen
from uuid import uuid4

import psutil
import psycopg
import pytest
from gate import Gate
from harness import AGGREGATE, PROCESS, Pipeline, finished, random_session

from barflow.lake.actions import read_actions
from barflow.market.actions import Dividend, Split
from barflow.market.bars import OF_A_BAR, SessionBars
from barflow.market.sessions import sessions_between, utc_now
from barflow.pipeline.session_columns import columns_of, to_table
from barflow.staging.actions import Actions, Answer
from rehearsal.oracle import Oracle, disagreements

INTERRUPTED = Path(__file__).with_name("interrupted.py")
EX_DATE = date(2025, 8, 1)
NEW_DAYS = [str(item.session_date) for item in sessions_between(date(2025, 8, 4), date(2025, 8, 29))]


@dataclass
class Running:
    """A pipeline with loaded sessions, and every session that was staged in it."""

    pipeline: Pipeline
    staged: dict[tuple[str, date], SessionBars] = field(default_factory=dict)
    changes: int = 0
    split: Split | None = None

    def stage_changes(self) -> None:
        """Stage two revised days and a new one, in two months, of two symbols, and a split whose ratio changes."""
        self.changes += 1
        days = ("2025-07-31", "2025-08-01", NEW_DAYS[self.changes])
        made = [random_session(symbol, day, seed=self.changes) for symbol in ("AAPL", "MSFT") for day in days]
        self.pipeline.stage(made)
        self.staged |= {(bars.symbol, bars.session_date): bars for bars in made}
        now = utc_now()
        self.split = Split("AAPL", EX_DATE, 1.0 + self.changes, "endpoint", now)
        paid = Dividend("AAPL", EX_DATE, 0.25 * self.changes, "USD", "endpoint", now)
        answers = [Answer("AAPL", item.kind, [item], "endpoint", now, now) for item in (self.split, paid)]
        Actions(self.pipeline.database).store(answers)


@pytest.fixture(scope="module")
def running(
    mongodb_uri: str, module_warehouse_dsn: str, spark: None, tmp_path_factory: pytest.TempPathFactory
) -> Running:
    lake = str(tmp_path_factory.mktemp("killed") / "lake")
    # The lease of a killed run expires after one second.
    found = Running(
        Pipeline(mongodb_uri, f"killed_{uuid4().hex[:8]}", module_warehouse_dsn, lake, {"BARFLOW_LEASE_SECONDS": "1"})
    )
    found.stage_changes()
    found.pipeline.process()
    found.pipeline.aggregate()
    return found


def descendants_of(child: Popen[str]) -> set[psutil.Process]:
    """Return all processes that a program has started. Call it while the program runs."""
    return set(psutil.Process(child.pid).children(recursive=True))


def wait_for_kill(child: Popen[str], descendants: set[psutil.Process]) -> None:
    """Wait until a killed program and all its descendants have ended, including those that it still starts."""
    while child.poll() is None:
        descendants |= descendants_of(child)
        time.sleep(0.05)
    stderr = child.communicate()[1]
    assert child.returncode == -signal.SIGKILL, stderr
    assert descendants, "the program had not started Spark"
    assert psutil.wait_procs(descendants, timeout=60)[1] == []


def archived(pipeline: Pipeline) -> dict[tuple[str, str], list[dict[str, object]]]:
    """Return every row of the lake, by partition."""
    found = {}
    for symbol, month, _ in pipeline.lake.partitions():
        table = pipeline.lake.read(symbol, month)
        assert table is not None
        found[symbol, month] = table.drop_columns(["revision", "known_from"]).to_pylist()
    return found


def check_end_state(running: Running) -> None:
    """Assert that every store holds the staged sessions, and that nothing of the killed run remains."""
    pipeline = running.pipeline
    expected: dict[tuple[str, str], list[dict[str, object]]] = {}
    for bars in sorted(running.staged.values(), key=lambda bars: bars.session_date):
        columns = {name: getattr(bars, name) for name in OF_A_BAR}
        columns["ts"] = [ts.replace(tzinfo=None) for ts in bars.ts]  # as a Spark task reads them
        columns["known_from"] = columns["ts"]
        document = {"_id": bars.key, "session_date": str(bars.session_date), "version": 1, **columns}
        rows = to_table([columns_of(document)])
        partition = expected.setdefault((bars.symbol, f"{bars.session_date:%Y-%m}"), [])
        partition += rows.drop_columns(["revision", "known_from"]).to_pylist()
    assert archived(pipeline) == expected
    superseded = [pipeline.lake.read_history(symbol, month) for symbol, month in expected]
    revisions = sum(sum(document["revision"]) for document in pipeline.database["bars"].find())
    assert sum(table.num_rows for table in superseded if table) == revisions
    split = running.split
    assert split is not None
    oracle = Oracle.of_sessions(running.staged.values(), [(split.symbol, split.ex_date, split.ratio)])
    assert disagreements(pipeline.warehouse_dsn, oracle) == {}
    check_actions(pipeline, split)
    counts = pipeline.counts()
    assert {hop: found for hop, found in counts.items() if found != counts["staged"]} == {}
    assert [*Path(pipeline.lake.root).glob("_staged/*")] == []
    with psycopg.connect(pipeline.warehouse_dsn) as connection:
        consumed = connection.execute("select unnest(manifests) from ops.load_run order by 1").fetchall()
    assert [run_id for (run_id,) in consumed] == pipeline.lake.manifest_ids()


def check_actions(pipeline: Pipeline, split: Split) -> None:
    """Assert that archive and warehouse hold the staged versions, and the one range that follows from them."""
    staged = Actions(pipeline.database).of(["AAPL"])["AAPL"].versions
    assert list(read_actions(pipeline.lake, "AAPL").versions) == staged
    with psycopg.connect(pipeline.warehouse_dsn, options="-c timezone=UTC") as connection:
        loaded = connection.execute(
            "select kind, coalesce(ratio, amount), known_from, known_until from market.corporate_action"
        ).fetchall()
        ranges = connection.execute("select symbol, last_day, split, dividend < 1 from market.adjustment").fetchall()
    versions = [(item.action.kind, item.action.value, item.action.known_from, item.known_until) for item in staged]
    assert sorted(loaded, key=str) == sorted(versions, key=str)
    assert ranges == [("AAPL", split.ex_date - timedelta(days=1), split.ratio, True)]


# When the run is killed, and the partitions of a slice: two are those of one symbol.
KILL_POINTS = {
    "all files staged, none in place": ("after", "barflow.pipeline.process:stage_partitions", "2"),
    "one history in place, of the bars none in place": ("after", "barflow.lake.partitions:Lake._promote", "2"),
    "bars in place": ("after", "barflow.pipeline.process:promote", "2"),
    "corporate actions staged, none in place": ("before", "barflow.pipeline.process:promote", "100"),
    "corporate actions in place": ("after", "barflow.pipeline.process:promote_actions", "2"),
    "between the manifest and the ledger": ("after", "barflow.lake.partitions:Lake.publish", "100"),
    "between the manifest of a slice and the ledger": ("after", "barflow.lake.partitions:Lake.publish", "2"),
    "between two slices": ("after", "barflow.staging.ledger:Ledger.record_part", "2"),
}


# The points of the fast tests. Each of the others differs from one of them by one step.
FAST = ("all files staged, none in place", "bars in place", "between two slices")


@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=() if point in FAST else pytest.mark.minutes) for point in KILL_POINTS]
)
def test_the_next_run_completes_a_killed_process(running: Running, point: str) -> None:
    running.stage_changes()
    pipeline = running.pipeline
    before = pipeline.warehouse(), pipeline.lake.manifest_ids(), archived(pipeline), pipeline.lake.complete_until()
    wait_for_kill(pipeline.start(PROCESS, under=(str(INTERRUPTED), *KILL_POINTS[point])), set())
    assert pipeline.warehouse() == before[0]
    new = pipeline.lake.manifest_ids()[len(before[1]) :]
    assert len(new) == point.startswith("between")
    assert (archived(pipeline) == before[2]) == ("none in place" in point)
    assert (pipeline.lake.complete_until() == before[3]) == (point != "between the manifest and the ledger")
    resumed = pipeline.process()["partitions"]
    assert resumed == (2 if point == "between two slices" else 4)
    pipeline.aggregate()
    check_end_state(running)


@pytest.mark.parametrize(
    "table",
    [
        pytest.param("market.bar_5min", id="during its first COPY", marks=pytest.mark.minutes),
        pytest.param("market.daily_metrics", id="during its last COPY"),
        pytest.param("market.adjustment", id="at its last rows", marks=pytest.mark.minutes),
    ],
)
def test_the_next_run_completes_an_aggregate_killed_during_a_write(running: Running, table: str) -> None:
    running.stage_changes()
    pipeline = running.pipeline
    pipeline.process()
    before = pipeline.warehouse()
    with Gate(pipeline.warehouse_dsn, table) as gate:
        child = pipeline.start(AGGREGATE)
        gate.wait()
        descendants = descendants_of(child)
        child.kill()
        wait_for_kill(child, descendants)
        assert pipeline.warehouse() == before
    assert pipeline.warehouse() == before
    assert pipeline.aggregate()["outcome"] == "loaded"
    check_end_state(running)


def test_the_next_run_completes_an_aggregate_killed_between_spark_and_its_transaction(running: Running) -> None:
    running.stage_changes()
    pipeline = running.pipeline
    pipeline.process()
    before = pipeline.warehouse()
    wait_for_kill(
        pipeline.start(AGGREGATE, under=(str(INTERRUPTED), "before", "barflow.warehouse.load:Load.commit", "100")),
        set(),
    )
    assert pipeline.warehouse() == before
    assert pipeline.aggregate()["outcome"] == "loaded"
    check_end_state(running)


def test_an_aggregate_killed_after_its_commit_needs_no_second_load(running: Running) -> None:
    running.stage_changes()
    pipeline = running.pipeline
    pipeline.process()
    wait_for_kill(
        pipeline.start(AGGREGATE, under=(str(INTERRUPTED), "after", "barflow.warehouse.load:Load.commit", "100")), set()
    )
    loaded = pipeline.warehouse()
    assert pipeline.aggregate()["outcome"] == "nothing new"
    assert pipeline.warehouse() == loaded
    check_end_state(running)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.minutes), signal.SIGTERM])
def test_a_program_that_is_stopped_while_spark_starts_leaves_no_jvm(running: Running, number: int) -> None:
    running.stage_changes()
    child = running.pipeline.start(PROCESS)
    program = psutil.Process(child.pid)
    while not (jvm := program.children()):
        time.sleep(0.01)
    try:
        child.send_signal(number)
        ran = finished(child)
        assert (ran.code, ran.error.startswith("stopped.")) == (130, True)
        assert psutil.wait_procs(jvm, timeout=60)[1] == []
    finally:
        for process in jvm:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    running.pipeline.process()
    running.pipeline.aggregate()
    check_end_state(running)
