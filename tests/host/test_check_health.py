"""Does the host's check see what is down, and an alert that nobody takes?"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from harness import program
from pymongo.database import Database

from barflow.alerts.outbox import Outbox
from barflow.market.sessions import utc_now
from barflow.staging.connection import Document

CHECK: Any = program("orchestration/host/check_health.py")
NOW = datetime(2026, 3, 2, 16, 0, tzinfo=UTC)
WELL = {name: {"status": "healthy"} for name in ("metadatabase", "scheduler", "dag_processor", "triggerer")}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the two servers answer, by path; a path that is missing is refused."""
    given: dict[str, Any] = {"/api/v2/monitor/health": WELL, "/": "the page"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = given.get(self.path)
            self.send_response(200 if found is not None else 500)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *given: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AIRFLOW_PORT", "DASHBOARD_PORT"):
        monkeypatch.setenv(name, str(server.server_port))
    monkeypatch.setenv("BARFLOW_ENV", "dev")
    yield given
    server.shutdown()
    server.server_close()


def test_nothing_is_down_while_all_answer(answers: dict[str, Any]) -> None:
    assert CHECK.airflow_down() + CHECK.page_down() == []
    assert CHECK.wait(0) == 0


def test_a_component_without_a_heartbeat_is_named(answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    answers["/api/v2/monitor/health"] = WELL | {"triggerer": {"status": None}, "scheduler": {"status": "unhealthy"}}
    assert CHECK.airflow_down() == ["scheduler (unhealthy)", "triggerer (None)"]
    assert CHECK.wait(0) == 1
    assert "error: not up after 0 s: scheduler (unhealthy), triggerer (None)" in capsys.readouterr().err


def test_servers_that_do_not_answer_are_named_each(answers: dict[str, Any]) -> None:
    answers.clear()
    (airflow,), (page,) = CHECK.airflow_down(), CHECK.page_down()
    assert airflow.startswith("api-server (HTTP Error 500")
    assert page.startswith("page (HTTP Error 500")


def test_what_is_down_and_how_long_alerts_wait_are_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARFLOW_ENV", "dev")
    found = CHECK.measured(["page", "scheduler"], 60.0)
    assert found.dimensions == {"Environment": "dev"}
    assert found.values == {"HostPartsDown": (2.0, "Count"), "UndeliveredAlertAge": (60.0, "Seconds")}
    assert list(CHECK.measured(["alerts"], None).values) == ["HostPartsDown"], "of what cannot be seen nothing is said"


def test_the_oldest_alert_that_a_channel_still_has_to_take_is_what_waits(database: Database[Document]) -> None:
    outbox, now = Outbox(database), utc_now()
    outbox.ensure()
    assert outbox.undelivered_age() == 0
    alerts = {"taken": (90, None), "old": (30, now + timedelta(hours=1)), "new": (5, now)}
    database["alerts"].insert_many(
        {"_id": name, "created_at": now - timedelta(minutes=age)} | ({"due_at": due} if due else {})
        for name, (age, due) in alerts.items()
    )
    assert 30 * 60 <= outbox.undelivered_age() < 31 * 60
