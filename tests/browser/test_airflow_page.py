"""Airflow's web UI on embedded services: triggered DAGs succeed, and the page shows the run in green."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests
from airflow_page import GRAPH_OF, look_at_run
from browsing import BrowserShot
from lineage_backend import Backend, backend, name_of

from barflow.errors import BarflowError
from barflow.market.sessions import last_sessions, utc_now
from barflow.pipeline.reconciliation import pending, reconcile
from barflow.pipeline.stores import Stores
from local.airflow import USER, LocalAirflow
from local.airflow_demo import airflow_on, welcome

SYMBOLS = ("AAPL", "MSFT")

pytestmark = pytest.mark.minutes


@pytest.fixture(scope="module")
def lineage() -> Iterator[Backend]:
    """Start the OpenLineage backend of Airflow and of the hops."""
    with backend() as server:
        yield server


@pytest.fixture(scope="module")
def airflow(browser_shot: BrowserShot, lineage: Backend) -> Iterator[tuple[LocalAirflow, Stores]]:
    """Start Airflow in a folder outside pytest's own, because PostgreSQL's user needs access to it."""
    with (
        tempfile.TemporaryDirectory(prefix="barflow-airflow-", ignore_cleanup_errors=True) as folder,
        airflow_on(Path(folder) / "state", symbols=SYMBOLS, history_sessions=5, openlineage_url=lineage.url) as started,
    ):
        yield started


def components(page: LocalAirflow) -> list[psutil.Process]:
    """Return the processes of Airflow."""
    assert page._process is not None
    parent = psutil.Process(page._process.pid)
    return [parent, *parent.children(recursive=True)]


def test_another_user_of_the_machine_gets_no_access(airflow: tuple[LocalAirflow, Stores]) -> None:
    page, _ = airflow
    assert requests.get(f"{page.url}/api/v2/dags", timeout=60).status_code == 401
    assert requests.get(f"{page.url}/auth/token", timeout=60).status_code == 403
    assert requests.get(f"{page.url}/auth/token/login", timeout=60, allow_redirects=False).status_code == 403
    for password in ("", USER, page.password[:-1]):
        answer = requests.post(f"{page.url}/auth/token", json={"username": USER, "password": password}, timeout=60)
        assert answer.status_code in (400, 401)
    assert [oct(path.stat().st_mode & 0o777) for path in (page.home, page.passwords)] == ["0o700", "0o600"]


def test_the_password_is_shown_once_and_is_in_no_log_and_no_argument(airflow: tuple[LocalAirflow, Stores]) -> None:
    page, _ = airflow
    assert page.password in welcome(page)
    page.password_is_new = False  # as in a second start
    assert page.password not in welcome(page)
    files = [path for path in page.home.rglob("*") if path.is_file() and page.password.encode() in path.read_bytes()]
    assert files == [page.passwords]
    running = components(page)
    assert len(running) > 4
    assert all(page.password not in " ".join([*it.cmdline(), *it.environ().values()]) for it in running)


def test_a_site_that_rebinds_its_name_to_this_machine_is_rejected(airflow: tuple[LocalAirflow, Stores]) -> None:
    page, _ = airflow
    port = page.url.rpartition(":")[2]

    def answers(host: str) -> set[int]:
        paths = ("/", "/auth/login", "/auth/token", "/api/v2/version", "/execution/health", "/static/x")
        return {requests.get(page.url + path, headers={"Host": host}, timeout=60).status_code for path in paths}

    assert answers(f"rebound.example:{port}") == answers("127.0.0.1.rebound.example") == answers("") == {400}
    assert 400 not in answers(f"localhost:{port}") | answers(f"127.0.0.1:{port}")


def test_airflow_listens_on_loopback_only(airflow: tuple[LocalAirflow, Stores]) -> None:
    page, _ = airflow
    open_ports = [it for process in components(page) for it in process.net_connections()]
    listening = {it.laddr for it in open_ports if it.status == psutil.CONN_LISTEN}
    assert {f"http://{address.ip}:{address.port}" for address in listening} == {page.url}


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
    assert all(bars[symbol] >= at_least for symbol in SYMBOLS)
    assert not pending(stores)
    assert f"{bars.total():,} Parquet rows of 2 symbols" in page.task_log("process_bars", run, "summary")


def test_one_dag_run_is_one_connected_graph(run: str, lineage: Backend) -> None:
    """Each hop's parent is its task, whose parent is the DAG run. Each dataset is read after it was written."""
    jobs = {"process": "bars_to_parquet", "aggregate": "bars_to_warehouse"}
    (dag,) = {event["run"]["runId"] for event in lineage.of("process_bars")}
    for hop, task in jobs.items():
        (of_task,) = {event["run"]["runId"] for event in lineage.of(f"process_bars.{task}")}
        states = [event["eventType"] for event in lineage.of(hop)]
        assert states == ["START", "COMPLETE"]
        for event in lineage.of(hop):
            parent = event["run"]["facets"]["parent"]
            assert name_of(parent["job"]) == ("barflow-local", f"process_bars.{task}")
            assert parent["run"]["runId"] == of_task
            assert parent["root"]["run"]["runId"] == dag
        for event in lineage.of(f"process_bars.{task}"):
            assert event["run"]["facets"]["parent"]["run"]["runId"] == dag
            assert not event.get("inputs"), "only the hops name datasets"
            assert not event.get("outputs")
            assert "sourceCode" not in event["job"]["facets"]
    written = {name_of(item) for hop in ("ingest", "process") for item in lineage.of(hop)[-1]["outputs"]}
    assert {name_of(item) for hop in jobs for item in lineage.of(hop)[-1]["inputs"]} <= written


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
    shown = look_at_run(browser_shot, page, run, view, drawn, picture(name))
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
