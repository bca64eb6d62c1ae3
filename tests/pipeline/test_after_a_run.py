"""What a run did is told as the stores have it, and what leaves MongoDB afterwards is held elsewhere whole."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from harness import Pipeline, made_up, revised

from barflow.errors import BarflowError
from barflow.operations.expiry import expire_staging
from barflow.operations.run_summary import summarize
from barflow.pipeline.status import pending, reconcile
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.staging.sessions import Staging

OLD, RECENT = ("2025-07-30", "2025-07-31"), ("2026-05-28", "2026-05-29")
NOW = datetime(2026, 5, 29, 21, tzinfo=UTC)


def run_on(pipeline: Pipeline) -> Stores:
    with pipeline.in_environment():
        return Stores(load_settings(), clock=lambda: NOW)


def stage(pipeline: Pipeline, *days: str) -> None:
    pipeline.stage([made_up(symbol, day) for symbol in ("AAPL", "MSFT") for day in days])


def staged_days(pipeline: Pipeline) -> set[str]:
    return {item["session_date"] for item in pipeline.database["bars"].find({}, {"session_date": 1})}


def test_a_summary_adds_up_every_try_of_its_run_and_no_other(pipeline: Pipeline) -> None:
    stage(pipeline, *RECENT)
    pipeline.process("--run-id", "20260529T210000Z-process-aaaaaa-1")
    pipeline.aggregate("--run-id", "20260529T210000Z-process-aaaaaa-1")
    stage(pipeline, OLD[0])
    pipeline.process("--run-id", "20260529T210000Z-process-aaaaaa-2")
    pipeline.aggregate("--run-id", "20260529T210000Z-process-aaaaaa-3")
    stage(pipeline, OLD[1])
    pipeline.process("--run-id", "20260529T220000Z-process-bbbbbb-1")
    pipeline.aggregate("--run-id", "20260529T220000Z-process-bbbbbb-1")
    found = summarize(run_on(pipeline), "20260529T210000Z-process-aaaaaa", 61.0)
    assert (found.symbols, found.published) == (2, 6 * 78)
    assert found.loaded["bar_5min"] == 6 * 78
    assert found.loaded["bar_1d"] == 6
    assert (found.rejected, found.dollars) == (0, None)


def test_old_sessions_leave_once_archive_and_warehouse_hold_them_and_everything_still_reconciles(
    pipeline: Pipeline,
) -> None:
    stage(pipeline, *OLD, *RECENT)
    stores = run_on(pipeline)
    assert expire_staging(stores, NOW) == 0  # in no archive yet
    pipeline.process()
    assert expire_staging(stores, NOW) == 0  # in no warehouse yet
    pipeline.aggregate()
    assert expire_staging(stores, NOW) == 4
    assert staged_days(pipeline) == set(RECENT)
    assert expire_staging(stores, NOW) == 0
    assert {symbol: status.warehouse for symbol, status in reconcile(stores).items()} == {
        "AAPL": 4 * 78,
        "MSFT": 4 * 78,
    }


def test_a_session_that_changed_since_it_was_loaded_stays(pipeline: Pipeline) -> None:
    stage(pipeline, *OLD)
    pipeline.process()
    pipeline.aggregate()
    bars = made_up("AAPL", OLD[0])
    pipeline.stage([revised(bars, 3, close=bars.low[3])])
    assert expire_staging(run_on(pipeline), NOW) == 3
    assert [item["_id"] for item in pipeline.database["bars"].find()] == [bars.key]


def test_a_session_that_changes_while_it_is_judged_stays(pipeline: Pipeline) -> None:
    stage(pipeline, OLD[0])
    staging = Staging(pipeline.database)
    counted = list(staging.counts())
    bars = made_up("AAPL", OLD[0])
    pipeline.stage([revised(bars, 3, close=bars.low[3])])
    assert staging.expire(counted) == 1
    assert [item["_id"] for item in pipeline.database["bars"].find()] == [bars.key]


def test_an_expired_session_that_is_corrected_later_reaches_the_warehouse(pipeline: Pipeline) -> None:
    stage(pipeline, *OLD)
    bars = made_up("AAPL", OLD[0])
    pipeline.stage([revised(bars, 5, close=bars.low[5])])  # so that its version was above the first
    pipeline.process()
    pipeline.aggregate()
    stores = run_on(pipeline)
    expire_staging(stores, NOW)
    pipeline.stage([revised(bars, 3, close=bars.low[3])])
    assert pending(stores) == {("AAPL", OLD[0])}
    pipeline.process()
    pipeline.aggregate()
    stored = [row for row in pipeline.rows("market.bar_5min") if row[0] == "AAPL" and row[1] == bars.ts[3]]
    assert [row[6] for row in stored] == [bars.low[3]]
    assert reconcile(stores)["AAPL"].warehouse == 2 * 78
    assert pending(stores) == set()


def test_a_run_that_does_not_reconcile_is_failed_by_what_is_wrong(pipeline: Pipeline) -> None:
    stage(pipeline, *RECENT)
    pipeline.process()
    pipeline.aggregate()
    stores = run_on(pipeline)
    assert pending(stores) == set()
    pipeline.database["bars"].update_one({"_id": "AAPL|5min|2026-05-28"}, {"$pop": dict.fromkeys(("ts", "open"), 1)})
    with pytest.raises(
        BarflowError, match=r"do not reconcile: AAPL 2026-05-28: 77 bars staged, parquet 78.*barflow status"
    ):
        reconcile(stores)
