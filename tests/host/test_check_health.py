"""Health check of the host: services that are down, and the age of undelivered alerts."""

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
HEALTHY = {name: {"status": "healthy"} for name in ("metadatabase", "scheduler", "dag_processor", "triggerer")}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Serve these answers by path; for any other path the server answers 500."""
    served: dict[str, Any] = {"/api/v2/monitor/health": HEALTHY, "/healthz": {"ok": True, "detail": ""}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = served.get(self.path)
            unwell = isinstance(found, dict) and found.get("ok") is False
            self.send_response(500 if found is None else 503 if unwell else 200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *given: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AIRFLOW_PORT", "DASHBOARD_PORT"):
        monkeypatch.setenv(name, str(server.server_port))
    monkeypatch.setenv("BARFLOW_ENV", "dev")
    yield served
    server.shutdown()
    server.server_close()


def test_nothing_is_down_while_everything_answers(answers: dict[str, Any]) -> None:
    assert CHECK.airflow_down() + CHECK.page_down() == []
    assert CHECK.wait(0) == 0


def test_an_unhealthy_component_is_named(answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    answers["/api/v2/monitor/health"] = HEALTHY | {"triggerer": {"status": None}, "scheduler": {"status": "unhealthy"}}
    assert CHECK.airflow_down() == ["scheduler (unhealthy)", "triggerer (None)"]
    assert CHECK.wait(0) == 1
    assert "error: not up after 0 s: scheduler (unhealthy), triggerer (None)" in capsys.readouterr().err


def test_each_server_that_does_not_answer_is_named(answers: dict[str, Any]) -> None:
    answers.clear()
    (airflow,), (page,) = CHECK.airflow_down(), CHECK.page_down()
    assert airflow.startswith("api-server (HTTP Error 500")
    assert page.startswith("page (HTTP Error 500")


def test_a_page_whose_watcher_does_not_work_is_down_although_it_answers(answers: dict[str, Any]) -> None:
    answers["/"] = "the page"
    answers["/healthz"] = {"ok": False, "detail": "The page's watcher of new bars and alerts ended."}
    (page,) = CHECK.page_down()
    assert page == "page (HTTP Error 503: Service Unavailable. The page's watcher of new bars and alerts ended.)"


def test_the_metrics_are_the_number_of_services_down_and_the_age_of_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARFLOW_ENV", "dev")
    ages = {"UndeliveredAlertAge": 60.0, "Stalest": None}
    found = CHECK.health_metrics(["page", "scheduler"], ages)
    assert found.dimensions == {"Environment": "dev"}
    assert found.values == {"HostPartsDown": (2.0, "Count"), "UndeliveredAlertAge": (60.0, "Seconds")}
    assert list(CHECK.health_metrics(["alerts"], {}).values) == ["HostPartsDown"], "the ages are unknown"


def test_the_age_is_that_of_the_oldest_undelivered_alert(database: Database[Document]) -> None:
    outbox, now = Outbox(database), utc_now()
    outbox.ensure()
    assert outbox.undelivered_age() == 0
    alerts = {"delivered": (90, None), "old": (30, now + timedelta(hours=1)), "new": (5, now)}
    database["alerts"].insert_many(
        {"_id": name, "created_at": now - timedelta(minutes=age)} | ({"due_at": due} if due else {})
        for name, (age, due) in alerts.items()
    )
    assert 30 * 60 <= outbox.undelivered_age() < 31 * 60
