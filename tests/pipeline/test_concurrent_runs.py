"""Concurrent runs leave the state of one run. A stalled run does not publish over the run that took its lease."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest
from harness import AGGREGATE, PROCESS, Pipeline, random_session

from barflow.pipeline import aggregate, process, process_plan
from barflow.staging.ledger import Lease
from barflow.warehouse.load import LOCK
from rehearsal.oracle import Oracle, disagreements

SESSIONS = [random_session(symbol, day) for symbol in ("AAPL", "MSFT") for day in ("2025-07-02", "2025-07-03")]


def test_two_concurrent_runs_of_each_hop_leave_the_state_of_one(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_plan, "PARTITIONS_PER_SLICE", 1)
    pipeline.stage(SESSIONS)
    assert pipeline.run_at_once(PROCESS, 2) == [0, 0]
    found = [pipeline.lake.manifest(name).symbols for name in pipeline.lake.manifest_ids()]
    assert found == [{"AAPL"}, {"MSFT"}], "the second run found nothing to do"
    assert pipeline.run_at_once(AGGREGATE, 2) == [0, 0]
    assert [row[-2] for row in pipeline.rows("ops.load_run")] == ["loaded"]
    assert disagreements(pipeline.warehouse_dsn, Oracle.of_sessions(SESSIONS)) == {}


def test_every_spelling_of_a_lake_uri_names_the_same_lake(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise two runs on one lake would hold two leases, and neither would find the other's ledger entries."""
    pipeline.stage(SESSIONS)
    pipeline.process()
    folder = pipeline.lake_uri
    monkeypatch.chdir(folder)
    for same in (f"{folder}/", f"file://{folder}", ".", "../lake"):
        assert pipeline.process("--lake", same)["outcome"] == "nothing changed", same


def test_a_stalled_run_does_not_publish_over_the_run_that_took_its_lease(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.settings["BARFLOW_LEASE_SECONDS"] = "0.5"
    pipeline.stage(SESSIONS)
    original = process.stage_partitions
    newer = random_session("AAPL", "2025-07-02", seed=1)

    def stalled(*arguments: Any, **options: Any) -> Any:
        staged = original(*arguments, **options)
        time.sleep(0.6)  # the lease is not renewed, so it expires
        monkeypatch.setattr(process, "stage_partitions", original)
        pipeline.stage([newer])
        pipeline.process()  # takes the lease over, ends, and releases it
        return staged

    monkeypatch.setattr(Lease, "_renew", lambda lease: None)
    monkeypatch.setattr(process, "stage_partitions", stalled)
    ran = pipeline.run(PROCESS)
    assert (ran.code, "this run stalled and another run took over" in ran.error) == (1, True)
    table = pipeline.lake.read("AAPL", "2025-07")
    assert table is not None
    assert table["close"].to_pylist()[:78] == newer.close
    assert len(pipeline.lake.manifest_ids()) == 1
    assert pipeline.process()["outcome"] == "nothing changed"


def test_a_run_waits_for_the_active_run_and_logs_it(pipeline: Pipeline) -> None:
    pipeline.settings["BARFLOW_LEASE_SECONDS"] = "1"
    pipeline.stage(SESSIONS)
    other = Lease(pipeline.database, f"process {pipeline.lake.uri}", "another run", 60)
    assert other.take()
    ran = pipeline.run(PROCESS)
    assert (ran.code, ran.result) == (1, {})
    wait_line, error_line = ran.stderr.splitlines()
    assert "another run is active or died recently; waiting up to 2 s for it" in wait_line
    assert error_line.endswith("another run is active. Nothing was changed. Wait until it ends, then run again.")
    other.release()
    assert pipeline.process()["outcome"] == "published"


def test_a_load_waits_for_the_active_load(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate, "LOCK_WAIT_SECONDS", 0.3)
    with psycopg.connect(pipeline.warehouse_dsn, autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s)", [LOCK])
        ran = pipeline.run(AGGREGATE)
    assert ran.code == 1
    assert ran.error == "another load is running. Nothing was changed. Wait for it to end, then run again."
