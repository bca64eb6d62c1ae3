"""The page's API: it reads both stores as one, rejects bad requests, requires the login, and never writes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from datetime import datetime, timedelta
from typing import Any

import pytest
import requests
from page_data import NOW, load, record_load, serve, session_bars, stage
from pymongo.database import Database

from barflow.alerts.message import Message
from barflow.alerts.outbox import Outbox
from barflow.errors import BarflowError
from barflow.market.sessions import utc_now
from barflow.staging.connection import Document, connect
from dashboard.queries import Warehouse

Served = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="module")
def aapl_url(mongodb_uri: str, module_warehouse_dsn: str) -> Iterator[str]:
    """The page that shows ten loaded sessions of AAPL and a newer staged one. Tests only read it."""
    database = connect(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}")
    load(module_warehouse_dsn, "AAPL", 10)
    stage(database, session_bars("AAPL"))
    with serve(database, module_warehouse_dsn) as url:
        yield url
    database.client.close()


def get(url: str, **options: Any) -> requests.Response:
    return requests.get(url, timeout=20, **options)


def alert(name: str, created_at: datetime) -> tuple[Message, list[str]]:
    """Return an alert with its channels."""
    message = Message(
        schema_version=1, id=name, rule="level_101", kind="level", symbol="AAPL", severity="info",
        session_date=NOW.date(), bar_start=NOW, direction="up", value=101, unit="dollars", reference=101,
        price=101, text="AAPL rose to 101.00, through 101.00", created_at=created_at,
    )  # fmt: skip
    return message, ["sse"]


def test_a_forming_hour_holds_the_staged_bars(aapl_url: str) -> None:
    page = get(f"{aapl_url}/api/bars/AAPL", params={"interval": "1h"}).json()
    assert page["close"] == [100.11, 100.17]
    assert page["complete"] == [True, False]
    assert page["volume"] == [sum(range(1000, 1012)), sum(range(1012, 1018))]


def test_the_newest_session_comes_from_staging_and_older_ones_from_the_warehouse(aapl_url: str) -> None:
    page = get(f"{aapl_url}/api/bars/AAPL", params={"interval": "1d"}).json()
    (row,) = get(f"{aapl_url}/api/watchlist").json()["rows"]
    assert page["close"] == [90.0] * 10 + [100.17]
    assert (row["last"], row["prev_close"], row["freshness"]) == (100.17, 90.0, "fresh")


def test_pages_of_candles_join_without_a_gap_or_an_overlap(aapl_url: str) -> None:
    url = f"{aapl_url}/api/bars/AAPL"
    whole = get(url, params={"interval": "1d"}).json()["time"]
    times: list[int] = []
    before = None
    while True:
        page = get(url, params={"interval": "1d", "limit": 3, "before": before}).json()
        times = page["time"] + times
        before = page["older"]
        if before is None:
            break
    assert times == whole
    assert len(times) == 11


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("bars/AAPL?limit=2001", 422),
        ("bars/AAPL?interval=7min", 422),
        ("bars/AAPL?before=-1", 422),
        ("bars/A'or'1", 422),
        ("bars/MSFT", 404),
        ("alerts?limit=0", 422),
        ("why?symbol=AAPL", 422),
        ("why?symbol=A'or'1&time=2025-07-17 10:00", 422),
        ("why?symbol=AAPL&time=noon", 400),
        ("why?symbol=AAPL&time=0001-01-01T00:00Z", 400),
        ("why?symbol=AAPL&time=2025-07-19 10:00", 400),
        ("why?symbol=MSFT&time=2025-07-17 10:00", 404),
    ],
)
def test_a_bad_request_is_rejected_with_a_reason(aapl_url: str, path: str, status: int) -> None:
    answer = get(f"{aapl_url}/api/{path}")
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_a_bar_names_its_versions_and_what_this_server_cannot_read(aapl_url: str) -> None:
    """The server has no lake, and the newest session is not loaded."""
    times = ("2025-07-16 10:02", "2025-07-17T14:02:30Z")
    answers = [get(f"{aapl_url}/api/why", params={"symbol": "aapl", "time": time}) for time in times]
    assert [answer.status_code for answer in answers] == [404, 200]
    assert "next to it open at 2025-07-17 09:30 New York" in answers[0].json()["detail"]
    told = answers[1].json()
    (version,) = told["versions"]
    assert (told["symbol"], told["bar_start"], version["close"]) == ("AAPL", "2025-07-17T14:00:00Z", 100.06)
    assert (told["file"], told["manifest"], told["load_id"], told["aggregates"]) == (None, None, None, {})
    assert "This process has no access to the lake" in told["missing"][0]
    assert any("The warehouse does not hold the bar yet" in line for line in told["missing"])


def test_loaded_data_is_shown_once_its_load_is_recorded(
    served: Served, database: Database[Document], warehouse_dsn: str
) -> None:
    load(warehouse_dsn, "AAPL", 10)
    with served() as url:
        assert [row["symbol"] for row in get(f"{url}/api/watchlist").json()["rows"]] == ["AAPL"]
        load(warehouse_dsn, "MSFT", 10)
        record_load(warehouse_dsn, "load-1")
        assert [row["symbol"] for row in get(f"{url}/api/watchlist").json()["rows"]] == ["AAPL", "MSFT"]
        load(warehouse_dsn, "TSLA", 10)
        record_load(warehouse_dsn, "load-2", finished_at="2020-01-01")  # the clock of the loading host is behind
        assert len(get(f"{url}/api/watchlist").json()["rows"]) == 3
        assert get(f"{url}/api/health").json()["symbols"] == 3


def test_the_newest_alerts_are_found_whatever_their_age(served: Served, database: Database[Document]) -> None:
    now, ages = utc_now(), [89.0, 40.0, 3.0, 0.02, 0.0]
    Outbox(database).add(alert(f"a{age}", now - timedelta(days=age)) for age in ages)
    until = now + timedelta(hours=1)
    Outbox(database).mutes.add("gap_5pct", ["TSLA"], until, "ann", None)
    database["mutes"].insert_one({"until": until, "ended_at": None})
    with served() as url:
        health = get(f"{url}/api/health").json()
        answers = [get(f"{url}/api/alerts", params={"limit": limit}).json()["alerts"] for limit in (1, 2, 3, 100)]
    found = [[item["message"]["id"] for item in alerts] for alerts in answers]
    newest = [f"a{age}" for age in sorted(ages)]
    assert found == [newest[:1], newest[:2], newest[:3], newest]
    assert [item["covers"] for item in health["mutes"]] == ["gap_5pct for TSLA"]
    assert {"collection": "mutes", "count": 1} in health["unreadable"], "of another version"


def test_a_tick_reaches_an_open_page(served: Served, database: Database[Document]) -> None:
    stage(database, session_bars("AAPL", until=NOW.replace(hour=14, minute=0)))
    with served() as url, requests.get(f"{url}/api/events", stream=True, timeout=20) as stream:
        lines = stream.iter_lines(chunk_size=1, decode_unicode=True)
        stage(database, session_bars("AAPL"))
        body = next(lines for line in lines if line == "event: bars")
        event = json.loads(next(body).removeprefix("data: "))
    assert [(row["symbol"], row["last"]) for row in event["rows"]] == [("AAPL", 100.17)]


def test_the_error_of_an_unmigrated_warehouse_names_the_command_to_run(empty_warehouse_dsn: str) -> None:
    with closing(Warehouse(empty_warehouse_dsn)) as warehouse, pytest.raises(BarflowError, match="barflow migrate"):
        warehouse.loaded()
