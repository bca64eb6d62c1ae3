"""Airflow's web UI on embedded services: triggered DAGs succeed, and the page shows the run in green."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow_page import GRAPH_OF, look_at_run
from browsing import BrowserShot

from barflow.errors import BarflowError
from barflow.market.sessions import last_sessions, utc_now
from barflow.pipeline.status import pending, reconcile
from barflow.pipeline.stores import Stores
from local.airflow import LocalAirflow
from local.airflow_demo import airflow_on

SYMBOLS = ("AAPL", "MSFT")

pytestmark = pytest.mark.minutes


@pytest.fixture(scope="module")
def airflow(browser_shot: BrowserShot) -> Iterator[tuple[LocalAirflow, Stores]]:
    """Start Airflow in a folder outside pytest's own, because PostgreSQL's user needs access to it."""
    with (
        tempfile.TemporaryDirectory(prefix="barflow-airflow-", ignore_cleanup_errors=True) as folder,
        airflow_on(Path(folder) / "state", symbols=SYMBOLS, history_sessions=5) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def run(airflow: tuple[LocalAirflow, Stores]) -> str:
    """Trigger process_bars, wait until the run has succeeded, and return its id."""
    page, _ = airflow
    run = page.trigger("process_bars")
    assert page.wait("process_bars", run, 420) == "success", page.tasks("process_bars", run)
    return run


def test_every_task_of_the_run_succeeds_and_the_hops_reconcile(airflow: tuple[LocalAirflow, Stores], run: str) -> None:
    page, stores = airflow
    assert set(page.tasks("process_bars", run).values()) == {"success"}
    status = reconcile(stores)
    bars = Counter[str]()
    for item in stores.staging.counts(SYMBOLS):
        bars[item["symbol"]] += item["bars"]
    assert {symbol: item.warehouse for symbol, item in status.items()} == bars
    # The newest session may still be open.
    at_least = sum(traded.expected_bars for traded in last_sessions(utc_now(), 5)[:4])
    assert all(bars[symbol] > at_least for symbol in SYMBOLS)
    assert pending(stores) == set()
    assert f"{bars.total():,} Parquet rows of 2 symbols" in page.task_log("process_bars", run, "summary")


@pytest.mark.parametrize(
    ("view", "drawn", "name"),
    [
        ("graph", GRAPH_OF.format(tasks=5), "airflow-graph.png"),
        ("grid", "document.body.innerText.includes('5 Task Instances')", "airflow-run.png"),
    ],
)
def test_the_page_shows_the_green_run(
    airflow: tuple[LocalAirflow, Stores],
    run: str,
    browser_shot: BrowserShot,
    picture: Callable[[str], Path],
    view: str,
    drawn: str,
    name: str,
) -> None:
    page, _ = airflow
    shown = look_at_run(browser_shot, page.url, run, view, drawn, picture(name))
    assert "success" in shown
    assert all(word not in shown for word in ("failed", "running", "no status")), shown


def test_ticks_backfills_and_the_sweep_can_be_triggered_by_hand(airflow: tuple[LocalAirflow, Stores]) -> None:
    page, stores = airflow

    def tasks_of(dag: str, **form: object) -> dict[str, str | None]:
        run = page.trigger(dag, **form)
        page.wait(dag, run, 240)
        return page.tasks(dag, run)

    assert set(tasks_of("ingest_bars").values()) == {"success"}
    assert set(tasks_of("sweep").values()) == {"success"}
    assert set(tasks_of("backfill_bars", symbols=["NVDA"], start="2025-07-07", end="2025-07-11").values()) == {
        "success"
    }
    assert [item["bars"] for item in stores.staging.counts(["NVDA"])] == [78] * 5
    weekend = tasks_of("backfill_bars", symbols=["NVDA"], start="2025-07-12", end="2025-07-13")
    assert weekend == {"plan": "failed", "fetch": "upstream_failed"}
    with pytest.raises(BarflowError, match="should be non-empty"):
        page.trigger("backfill_bars", symbols=[], start="2025-07-07", end="2025-07-11")
    with pytest.raises(BarflowError, match="'soon' is not a 'date'"):
        page.trigger("backfill_bars", symbols=["NVDA"], start="soon", end="2025-07-11")
