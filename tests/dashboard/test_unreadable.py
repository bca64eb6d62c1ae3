"""Documents that the page cannot read are skipped and counted, and the watcher survives and reports every exception."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from backtest_summaries import MADE, figures, summary
from bson import decode, encode
from bson.errors import InvalidBSON
from page_data import NOW, load, session_bars, stage
from pymongo.database import Database
from test_api import alert, get

from barflow.alerts.outbox import Outbox
from barflow.backtest.stored import KEPT, Backtests
from barflow.errors import BarflowError, UnavailableError
from barflow.market.sessions import utc_now
from barflow.staging.connection import UTC_AWARE, Document
from dashboard import live
from dashboard.app import create_app
from dashboard.live import Live
from dashboard.server import Server, serving
from dashboard.staged import LENIENT
from dashboard.unreadable import Unreadable

Served = Callable[..., AbstractContextManager[str]]


def add_alert(database: Database[Document], name: str, **changes: Any) -> None:
    """Store an alert of now with changes to its document, in one write. A value of None removes the field."""
    aside: Database[Document] = database.client[f"{database.name}_aside"]
    Outbox(aside).add([alert(name, utc_now())])
    for field, value in changes.items():
        place = field.replace("__", ".")
        change = {"$unset": {place: ""}} if value is None else {"$set": {place: value}}
        aside["alerts"].update_one({"_id": name}, change)
    database["alerts"].insert_one(aside["alerts"].find_one_and_delete({"_id": name}) or {})


def add_unreadable_alerts(database: Database[Document]) -> int:
    """Store alerts of other versions and with every kind of damage. Return how many."""
    changes: list[dict[str, Any]] = [
        {"message__schema_version": 2},
        {"message": None},
        {"message": "text"},
        {"message__kind": "of the future"},
        {"message__more": 1},
        {"message__price": "much"},
        {"message__session_date": "2025-07-32"},
    ]
    for number, change in enumerate(changes):
        add_alert(database, f"unreadable-{number}", **change)
    database["alerts"].insert_one({"_id": {"a": "document"}, "symbol": "AAPL", "created_at": utc_now(), "bar_start": 5})
    return len(changes) + 1


def far_away() -> bytes:
    """Return an alert whose bar is later than a datetime can be, and whose id is a document."""
    now = utc_now()
    made = encode({"_id": {"a": "document"}, "symbol": "AAPL", "created_at": now, "bar_start": now})
    return made[:-9] + (2**62).to_bytes(8, "little") + made[-1:]


def test_invalid_text_and_far_dates_do_not_fail_the_whole_read() -> None:
    invalid = encode({"text": "AAAA"}).replace(b"AAAA", b"\xff\xfe\xfd\xfc")
    for document in (invalid, far_away()):
        with pytest.raises(InvalidBSON):
            decode(document, UTC_AWARE)
        assert decode(document, LENIENT)


def names(alerts: list[dict[str, Any]]) -> list[str]:
    return [item["message"]["id"] for item in alerts]


def test_unreadable_alerts_are_skipped_and_counted_and_later_ones_arrive(
    served: Served, database: Database[Document]
) -> None:
    stage(database, session_bars("AAPL"))
    add_alert(database, "first")
    count = add_unreadable_alerts(database)
    with served() as url, requests.get(f"{url}/api/events", stream=True, timeout=20) as stream:
        for query in ({"limit": 100}, {"limit": 1}, {"symbol": "AAPL", "limit": 1}):
            answer = get(f"{url}/api/alerts", params=query)
            assert answer.status_code == 200, answer.text
            assert names(answer.json()["alerts"]) == ["first"]
        assert answer.json()["unreadable"] == count
        add_alert(database, "while-watching", message__schema_version=2)
        add_alert(database, "second")
        lines = stream.iter_lines(chunk_size=1, decode_unicode=True)
        assert any('"id":"second"' in line for line in lines if line.startswith("data: "))
        health = get(f"{url}/api/health").json()
        assert health["unreadable"] == [{"collection": "alerts", "count": count + 1}]
        assert get(f"{url}/healthz").json() == {"ok": True, "detail": ""}
        database["alerts"].update_one({"_id": "unreadable-0"}, {"$set": {"message.schema_version": 1}})
        assert get(f"{url}/api/alerts").json()["unreadable"] == count, "it can be read now"


def test_unreadable_sessions_runs_and_manifests_are_skipped_and_counted(
    database: Database[Document], warehouse_dsn: str, tmp_path: Path
) -> None:
    from barflow.lake.partitions import Lake

    load(warehouse_dsn, "AAPL", 10)
    stage(database, session_bars("AAPL"))
    database.command("collMod", "bars", validator={}, validationLevel="off")
    now = utc_now()
    good = database["bars"].find_one() or {}
    for number, change in enumerate(
        ({"ts": None}, {"ts": []}, {"session_date": "soon"}, {"close": ["a"] * 18}, {"version": None}, {"open": [1.0]})
    ):
        day = f"2025-07-{10 + number:02d}"
        document = good | {"_id": f"MSFT|5min|{day}", "symbol": "MSFT", "session_date": day, "updated_at": now} | change
        database["bars"].insert_one(document)
    saturday = good | {"_id": "AAPL|5min|2025-07-19", "session_date": "2025-07-19", "updated_at": now}
    database["bars"].insert_one(saturday)
    run = {"started_at": now, "outcome": "succeeded"}
    database["ledger"].insert_one({"_id": "odd", "hop": "ingest", "symbols": 5} | run)
    database["ledger"].insert_one({"_id": "new", "hop": "process", "manifest": "new"} | run)
    database["rejected_bars"].insert_many([{"symbol": None, "replayed_at": None}, {"symbol": 5, "replayed_at": None}])
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/new.json").write_text('{"version": 2}')
    app = create_app(database, warehouse_dsn, lake=Lake(str(tmp_path)), clock=lambda: NOW, poll_seconds=0.05)
    with serving(app, "127.0.0.1", 0) as server:
        assert app.state.live.wait(20)
        for path in ("watchlist", "bars/AAPL", "bars/AAPL?interval=1d", "health"):
            answer = get(f"{server.url}api/{path}")
            assert answer.status_code == 200, answer.text
        health = get(f"{server.url}api/health").json()
        assert get(f"{server.url}healthz").status_code == 200
    counts = {item["collection"]: item["count"] for item in health["unreadable"]}
    assert counts == {"bars": 7, "ledger": 2, "manifests": 1}
    assert [item["symbol"] for item in health["rejected"]] == ["5", "None"]
    assert [hop["run"] for hop in health["hops"]][:2] == [None, None]


def test_each_document_is_counted_once_and_the_count_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.unreadable.MAX_COUNTED", 3)
    found = Unreadable()
    for _ in range(2):
        assert found.read("alerts", {"_id": 1}, lambda document: document["x"]) is None
    assert found.counts() == {"alerts": 1}
    for number in range(10):
        found.read("alerts", {"_id": number}, lambda document: document["x"])
    assert found.counts() == {"alerts": 3}
    for number in range(10):
        assert found.read("alerts", {"_id": number}, lambda document: "read") == "read"
    assert found.counts() == {}


class Store:
    """Staged data whose poll does what a test says."""

    def __init__(self) -> None:
        self.poll: Callable[[], None] = lambda: None

    def start(self, symbols: object, now: datetime) -> None:
        pass

    def refresh(self) -> list[str]:
        self.poll()
        return []

    def new_alerts(self) -> list[Any]:
        return []


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def watched(store: Store) -> Iterator[Live]:
    """A watcher that polls every 10 ms, without a server."""
    made: Any = store
    watcher = Live(made, lambda: [], lambda names: [], lambda: NOW, 0.01)
    watcher._thread.start()
    yield watcher
    watcher.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), RecursionError("x"), AssertionError("x"), MemoryError("x")])
def test_the_watcher_survives_an_exception_and_reports_it_once(
    watched: Live, store: Store, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    until(lambda: watched._ready.is_set())
    assert watched.problem() == ""
    store.poll = fail
    until(watched.problem)
    time.sleep(0.1)
    assert watched.problem() == (
        f"The page's watcher failed: {type(error).__name__}. It continues. Its log has the details."
    )
    assert watched.stopped() == ""
    assert caplog.text.count("the page's watcher failed") == 1
    store.poll = lambda: None
    until(lambda: not watched.problem())


def test_an_outage_of_a_store_is_no_problem_of_the_watcher(watched: Live, store: Store) -> None:
    def fail() -> None:
        raise UnavailableError("MongoDB could not be reached")

    store.poll = fail
    until(lambda: watched._outage)
    assert watched.problem() == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_or_stuck_watcher_is_unhealthy_and_ends_the_page(
    watched: Live, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = threading.Event()
    store.poll = lambda: hold.wait(30) and None  # type: ignore[assignment,return-value]
    monkeypatch.setattr(live, "STUCK_SECONDS", 0.2)
    until(watched.stopped)
    assert "has not finished a poll for" in watched.problem()
    serving_thread = threading.Thread(target=lambda: time.sleep(30), daemon=True)
    serving_thread.start()
    with pytest.raises(BarflowError, match=r"has not finished a poll .* Start it again with `barflow dashboard`"):
        Server("http://127.0.0.1/", watched, serving_thread).wait()
    hold.set()

    def die() -> None:
        raise SystemExit

    store.poll = die
    until(lambda: not watched._thread.is_alive())
    assert watched.problem() == "The page's watcher of new bars and alerts ended."
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    with pytest.raises(BarflowError, match="The page's server ended"):
        Server("http://127.0.0.1/", watched, ended).wait()


def test_the_health_check_is_503_while_the_watcher_fails(
    database: Database[Document], module_warehouse_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(database, module_warehouse_dsn, clock=lambda: NOW, poll_seconds=0.05)
    with serving(app, "127.0.0.1", 0) as server:
        assert app.state.live.wait(20)
        monkeypatch.setattr(app.state.live, "_poll", lambda **given: 1 / 0)
        until(app.state.live.problem)
        answer = get(f"{server.url}healthz")
        assert (answer.status_code, answer.json()["ok"]) == (503, False)
        assert "ZeroDivisionError" in answer.json()["detail"]
        assert get(f"{server.url}api/watchlist").status_code == 200


def test_old_unreadable_alerts_do_not_hide_older_readable_ones(served: Served, database: Database[Document]) -> None:
    Outbox(database).add([alert("old", utc_now() - timedelta(days=60))])
    for number in range(30):
        add_alert(database, f"new-{number}", message__schema_version=2)
    with served() as url:
        answer = get(f"{url}/api/alerts", params={"limit": 5}).json()
    assert (names(answer["alerts"]), answer["unreadable"]) == (["old"], 30)


def test_the_last_20_backtests_are_listed_newest_first_and_an_unreadable_one_is_counted(
    served: Served, database: Database[Document]
) -> None:
    stored = Backtests(database)
    for minutes in range(KEPT + 2):
        stored.add(summary(minutes))
    assert database["backtests"].count_documents({}) == KEPT
    database["backtests"].update_one({"created_at": MADE + timedelta(minutes=10)}, {"$set": {"rules": "of the future"}})
    with served() as url:
        found = get(f"{url}/api/backtests").json()
    times = [datetime.fromisoformat(item["created_at"]) for item in found["backtests"]]
    assert times == [MADE + timedelta(minutes=minutes) for minutes in range(KEPT + 1, 1, -1) if minutes != 10]
    assert found["unreadable"] == 1
    newest = found["backtests"][0]
    assert (newest["first"], newest["last"], newest["symbols"]) == ("2025-06-27", "2025-07-30", 2)
    assert [(rule["rule"], rule["alerts"], rule["longest_silence"]) for rule in newest["rules"]] == [
        ("dip", 40, 7),
        ("never", 0, 22),
    ]
    expected = dataclasses.asdict(figures("dip").returns["1h"])
    assert newest["rules"][0]["returns"]["1h"] == {name: pytest.approx(value) for name, value in expected.items()}
