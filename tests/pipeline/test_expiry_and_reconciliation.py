"""Run summary, staging expiry and reconciliation: all three agree with what the stores hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from harness import Pipeline, random_session, revised

from barflow.errors import BarflowError
from barflow.lake.actions import actions_path
from barflow.market.actions import Split
from barflow.operations.daily_actions import run_due
from barflow.operations.expiry import expire_staging
from barflow.operations.run_summary import summarize
from barflow.pipeline.ingest import run as run_tick
from barflow.pipeline.reconciliation import collect, pending, reconcile
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.staging.actions import Actions, Answer
from barflow.staging.sessions import Staging
from emulators.twelvedata.server import TwelveDataEmulator
from local.synthetic import SyntheticBars

OLD, RECENT = ("2025-07-30", "2025-07-31"), ("2026-05-28", "2026-05-29")
NOW = datetime(2026, 5, 29, 21, tzinfo=UTC)


def open_stores(pipeline: Pipeline) -> Stores:
    with pipeline.in_environment():
        return Stores(load_settings(), clock=lambda: NOW)


def stage(pipeline: Pipeline, *days: str) -> None:
    pipeline.stage([random_session(symbol, day) for symbol in ("AAPL", "MSFT") for day in days])


def staged_days(pipeline: Pipeline) -> set[str]:
    return {item["session_date"] for item in pipeline.database["bars"].find({}, {"session_date": 1})}


def test_a_summary_adds_up_all_attempts_of_its_run_only(pipeline: Pipeline) -> None:
    stage(pipeline, *RECENT)
    pipeline.process("--run-id", "20260529T210000Z-process-aaaaaa-1")
    pipeline.aggregate("--run-id", "20260529T210000Z-process-aaaaaa-1")
    stage(pipeline, OLD[0])
    pipeline.process("--run-id", "20260529T210000Z-process-aaaaaa-2")
    pipeline.aggregate("--run-id", "20260529T210000Z-process-aaaaaa-3")
    stage(pipeline, OLD[1])
    pipeline.process("--run-id", "20260529T220000Z-process-bbbbbb-1")
    pipeline.aggregate("--run-id", "20260529T220000Z-process-bbbbbb-1")
    summary = summarize(open_stores(pipeline), "20260529T210000Z-process-aaaaaa", 61.0)
    assert (summary.symbols, summary.published) == (2, 6 * 78)
    assert summary.loaded["bar_5min"] == 6 * 78
    assert summary.loaded["bar_1d"] == 6
    assert (summary.rejected, summary.dollars) == (0, None)


def test_old_sessions_expire_once_archive_and_warehouse_hold_them_and_the_hops_reconcile(
    pipeline: Pipeline,
) -> None:
    stage(pipeline, *OLD, *RECENT)
    stores = open_stores(pipeline)
    assert expire_staging(stores, NOW) == 0  # not in the archive yet
    pipeline.process()
    assert expire_staging(stores, NOW) == 0  # not in the warehouse yet
    pipeline.aggregate()
    assert expire_staging(stores, NOW) == 4
    assert staged_days(pipeline) == set(RECENT)
    assert expire_staging(stores, NOW) == 0
    assert {symbol: status.warehouse for symbol, status in reconcile(stores).items()} == {
        "AAPL": 4 * 78,
        "MSFT": 4 * 78,
    }


def test_a_session_that_changed_after_its_load_does_not_expire(pipeline: Pipeline) -> None:
    stage(pipeline, *OLD)
    pipeline.process()
    pipeline.aggregate()
    bars = random_session("AAPL", OLD[0])
    pipeline.stage([revised(bars, 3, close=bars.low[3])])
    assert expire_staging(open_stores(pipeline), NOW) == 3
    assert [item["_id"] for item in pipeline.database["bars"].find()] == [bars.key]


def test_a_session_that_changes_while_it_is_checked_does_not_expire(pipeline: Pipeline) -> None:
    stage(pipeline, OLD[0])
    staging = Staging(pipeline.database)
    counted = list(staging.counts())
    bars = random_session("AAPL", OLD[0])
    pipeline.stage([revised(bars, 3, close=bars.low[3])])
    assert staging.expire(counted) == 1
    assert [item["_id"] for item in pipeline.database["bars"].find()] == [bars.key]


def test_an_expired_session_that_is_corrected_later_reaches_the_warehouse(pipeline: Pipeline) -> None:
    stage(pipeline, *OLD)
    bars = random_session("AAPL", OLD[0])
    pipeline.stage([revised(bars, 5, close=bars.low[5])])  # its version is now 2
    pipeline.process()
    pipeline.aggregate()
    stores = open_stores(pipeline)
    expire_staging(stores, NOW)
    pipeline.stage([revised(bars, 3, close=bars.low[3])])
    assert pending(stores).sessions == {("AAPL", OLD[0])}
    pipeline.process()
    pipeline.aggregate()
    stored = [row for row in pipeline.rows("market.bar_5min") if row[0] == "AAPL" and row[1] == bars.ts[3]]
    assert [row[6] for row in stored] == [bars.low[3]]
    assert reconcile(stores)["AAPL"].warehouse == 2 * 78
    assert not pending(stores)


def test_a_run_that_does_not_reconcile_fails_with_the_session_that_differs(pipeline: Pipeline) -> None:
    stage(pipeline, *RECENT)
    pipeline.process()
    pipeline.aggregate()
    stores = open_stores(pipeline)
    assert not pending(stores)
    pipeline.database["bars"].update_one({"_id": "AAPL|5min|2026-05-28"}, {"$pop": dict.fromkeys(("ts", "open"), 1)})
    with pytest.raises(
        BarflowError, match=r"do not reconcile: AAPL 2026-05-28: 77 bars staged, parquet 78.*barflow status"
    ):
        reconcile(stores)


def test_corporate_actions_never_expire_and_a_lost_version_is_named(pipeline: Pipeline) -> None:
    stage(pipeline, *OLD)
    stores, day = open_stores(pipeline), date.fromisoformat(OLD[1])
    split = Split("AAPL", day, 10, "file", NOW)
    actions = Actions(pipeline.database)
    actions.store([Answer("AAPL", "split", [split], "file", NOW, NOW)])
    assert pending(stores).actions == {"AAPL"}
    pipeline.process()
    assert pending(stores).actions == {"AAPL"}
    assert reconcile(stores)["AAPL"].actions == {"staged": 1, "parquet": 1, "warehouse": 0}  # pending
    pipeline.aggregate()
    assert expire_staging(stores, NOW) == 4
    assert not pending(stores)
    assert reconcile(stores)["AAPL"].actions == {"staged": 1, "parquet": 1, "warehouse": 1}

    later = NOW + timedelta(seconds=1)
    actions.store([Answer("AAPL", "split", [replace(split, ratio=4, known_from=later)], "file", later, later)])
    assert reconcile(stores)["AAPL"].actions["staged"] == 2
    pipeline.process()
    pipeline.aggregate()
    with psycopg.connect(pipeline.warehouse_dsn) as connection:
        connection.execute("delete from market.corporate_action where known_until is not null")
    with pytest.raises(BarflowError, match="AAPL versions of corporate actions: staged 2, parquet 2, warehouse 1"):
        reconcile(stores)
    pipeline.aggregate("--full")
    path = Path(actions_path(pipeline.lake, "AAPL"))
    path.rename(path.with_suffix(".lost"))
    with pytest.raises(BarflowError, match="staged 2, parquet 0, warehouse 2"):
        reconcile(stores)


def test_a_wrong_session_is_found_by_the_vendors_own_day(pipeline: Pipeline) -> None:
    """A daily bar that differs from ours is named. It travels also when no bar changed."""
    evening, day = datetime(2025, 7, 2, 20, 30, tzinfo=UTC), date(2025, 7, 2)
    with TwelveDataEmulator(SyntheticBars(seed=7), clock=lambda: evening) as api, pipeline.in_environment():
        api.switches.listed = dict.fromkeys(("AAPL", "MSFT"), datetime(2025, 6, 27, 13, 30, tzinfo=UTC))
        vendor = {"twelvedata_url": api.url, "twelvedata_api_key": "emulator-key", "symbols": "AAPL,MSFT"}
        limits = {"credits_per_minute": 600, "credits_per_day": None, "history_sessions": 2}
        stores = Stores(load_settings(**vendor, **limits), clock=lambda: evening)
        run_tick(stores, stores.settings.symbols, print)
        pipeline.process()
        pipeline.aggregate()
        assert {item.vendor_day for item in collect(stores).values()} == {None}
        api.switches.wrong_days = {("AAPL", day): 1.012}
        assert run_due(stores, print).vendor_days == 2
        pipeline.process()
        pipeline.aggregate()
        found = reconcile(stores)
    [difference] = found["AAPL"].differing
    assert difference.startswith("2025-07-02: ")
    assert "differs by 119 bps from Twelve Data's daily bar: ours " in difference
    assert found["MSFT"].differing == []
    assert found["MSFT"].vendor_day == {
        "session_date": "2025-07-02", "worst": found["MSFT"].vendor_day["worst"], "worst_bps": 0.0, "volume_pct": 0.0
    }  # fmt: skip
