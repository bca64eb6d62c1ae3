"""One event is one alert at a webhook and at a service of apprise (guarantee G6): kills, races, outages, 410 Gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import alert_ticks
import pytest
from alert_ticks import FIRING, FLAT, SYMBOLS, answer, at, hop, ids, make_due, slack
from apprise_receivers import TOKEN, JsonReceiver
from processes import Waiting, run, run_killed, start
from pymongo.database import Database
from ticks import everything
from typer.testing import CliRunner
from webhook_receivers import DROP, HOST, LEAK, SECRET, TlsReceiver, channel

from barflow.alerts.delivery import LONGEST_WAIT
from barflow.alerts.endpoints import Endpoints
from barflow.alerts.outbox import Outbox
from barflow.cli.alerts import alerts_app
from barflow.errors import BadInputError
from barflow.market.sessions import utc_now
from barflow.pipeline import ingest
from barflow.staging.connection import Document
from emulators.slack.server import Fault, SlackEmulator

Mongo = Database[Document]
Service = TlsReceiver | JsonReceiver
KINDS: dict[str, type[Service]] = {"webhook": TlsReceiver, "apprise": JsonReceiver}
FIRED = "level_101|AAPL|2025-07-30T13:40:00Z"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[TlsReceiver]:
    with TlsReceiver(tmp_path) as running:
        yield running


@pytest.fixture(params=KINDS)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A receiver of each channel that is not AWS's or Slack's."""
    with KINDS[request.param](tmp_path) as running:
        yield running


def ready(uri: str, database: Mongo, service: Service, **settings: Any) -> Waiting:
    """Return a process that is ready to tick, with the channel of this receiver."""
    return start(alert_ticks.prepare, uri=uri, database=database.name, **service.ready, **settings)


# Where a tick is killed, and how often the receiver has got the alert by then.
DIES = {
    "between the state and the outbox": ("AlertStates.save", "after", 0),
    "between the outbox and the end of the tick": ("Outbox.insert", "after", 0),
    "between the outbox and sending": ("Delivery._claim", "after", 0),
    "between sending and recording": ("Delivery._record_sent", "before", 1),
}


@pytest.mark.parametrize("point", DIES)
def test_a_tick_killed_anywhere_is_one_alert_at_the_receiver(
    database: Mongo, mongodb_uri: str, service: Service, point: str
) -> None:
    method, when, sent = DIES[point]
    hop(database, answer("AAPL", FLAT, at(2)), now=at(2)).tick(["AAPL"])
    run_killed(ready(mongodb_uri, database, service, now=at(3), closes={"AAPL": FIRING}, die=(method, when)))
    assert service.requests == sent
    make_due(database)
    for _ in range(2):
        again, sender = answer("AAPL", FIRING, at(4)), service.channel()
        hop(database, again, now=at(4), channels=[sender]).tick(["AAPL"])
    assert ids(database) == service.acted_ids() == [FIRED]
    assert service.requests == sent + 1, "at least once, and the same id"


def test_two_ticks_at_once_and_a_correction_are_one_alert_per_event(
    database: Mongo, mongodb_uri: str, service: Service
) -> None:
    closes = {symbol: {0: 100.0, 1: 102.0} for symbol in SYMBOLS}
    ticks = [ready(mongodb_uri, database, service, now=at(2), closes=closes) for _ in range(2)]
    run(*ticks)
    assert [item.process.exitcode for item in ticks] == [0, 0]
    assert sorted(service.acted_ids()) == ids(database)
    assert service.requests == len(SYMBOLS), "nothing is sent twice"
    sender = service.channel()
    for close in (100.0, 103.0):
        hop(database, answer("S00", [100.0, close], at(2)), now=at(2), channels=[sender]).tick(["S00"])
    assert service.requests == len(SYMBOLS)


@pytest.mark.parametrize("fault", [500, 302, DROP])
def test_an_outage_of_a_receiver_delays_neither_tick_nor_the_other_receiver(
    database: Mongo, tmp_path: Path, service: Service, fault: int | str
) -> None:
    service.fault = fault
    (tmp_path / "other").mkdir()
    with type(service)(tmp_path / "other") as other:
        channels = [item.channel() for item in (service, other)]
        report = hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=channels).tick(["AAPL"])
        assert (report.counts["AAPL"].new, report.alerts, other.acted_ids()) == (3, 1, [FIRED])
        assert [service.seen_as in note for note in report.notes["alerts"]] == [True], "the tick notes it"
        [waiting] = database["alerts"].find()
        state = waiting["channels"][channels[0].name]
        assert (state["delivered_at"], state["attempts"]) == (None, 1)
        hop(database, now=at(4), channels=channels).tick(["AAPL"])
        assert service.requests == 1, "not before the next attempt is due"
        service.fault = None
        make_due(database)
        for _ in range(2):
            hop(database, now=at(4), channels=channels).tick(["AAPL"])
        assert (service.acted_ids(), other.requests) == ([FIRED], 1)
    [sent] = database["alerts"].find()
    assert "due_at" not in sent
    for hidden in (SECRET, LEAK.decode(), TOKEN):
        assert hidden not in everything(database)


def test_a_receiver_that_is_down_is_tried_twice_in_a_tick_at_most(
    database: Mongo, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit of a request must not add up over the parts of a tick."""
    monkeypatch.setattr(ingest, "FLUSH_BARS", 1)
    service.fault = DROP
    fired = [answer(symbol, FIRING, at(3)) for symbol in SYMBOLS]
    hop(database, *fired, now=at(3), channels=[service.channel()]).tick(SYMBOLS)
    assert len(ids(database)) == len(SYMBOLS)
    assert service.requests <= 2


def test_a_receiver_cannot_hold_back_its_alerts_for_years(database: Mongo, receiver: TlsReceiver) -> None:
    receiver.fault, receiver.retry_after = 429, "999999999"
    sender = channel(receiver.url, receiver.certificate)
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=[sender]).tick(["AAPL"])
    [waiting] = database["alerts"].find()
    assert timedelta(0) < waiting["due_at"] - utc_now() <= LONGEST_WAIT


# 410 Gone.


def test_410_disables_one_endpoint_tells_people_once_and_drops_its_alerts(
    database: Mongo, tmp_path: Path, receiver: TlsReceiver, slack_server: SlackEmulator
) -> None:
    receiver.fault, receiver.times = 410, 1
    (tmp_path / "other").mkdir()
    with TlsReceiver(tmp_path / "other") as other:
        gone, works = (channel(item.url, item.certificate) for item in (receiver, other))
        channels = [slack(slack_server.url), gone, works]
        names = ["AAPL", "MSFT"]
        fired = [answer(symbol, FIRING, at(3)) for symbol in names]
        report = hop(database, *fired, now=at(3), channels=channels).tick(names)
        assert any("410 Gone and is disabled" in note for note in report.notes["alerts"])
        later = {**FIRING, 3: 100.0, 4: 102.0}
        report = hop(database, answer("AAPL", later, at(5)), now=at(5), channels=channels).tick(["AAPL"])
        assert any("is disabled" in note for note in report.notes["alerts"]), "each tick that drops an alert says so"
        assert (receiver.requests, len(other.acted)) == (1, 3)
    [posted] = [post["text"] for post in slack_server.posts if "webhook disabled" in post["text"]]
    assert f"{HOST} answered 410 Gone" in posted
    assert f"`barflow alerts webhooks --enable {gone.name}`" in posted
    for alert in database["alerts"].find():
        state = alert["channels"][gone.name]
        assert state["dropped_at"]
        assert state["delivered_at"] is None
        assert "due_at" not in alert, "nothing waits, so no alarm stays on"
    assert Outbox(database).undelivered_age() == 0
    assert LEAK.decode() not in everything(database) + posted


@pytest.mark.parametrize("point", [("Endpoints.disable", "before"), ("Endpoints.disable", "after")])
def test_a_tick_killed_at_410_still_disables_and_reports(
    database: Mongo, mongodb_uri: str, receiver: TlsReceiver, slack_server: SlackEmulator, point: tuple[str, str]
) -> None:
    receiver.fault = 410
    tick = {"now": at(3), "closes": {"AAPL": FIRING}, "slack": slack_server.url, "die": point}
    run_killed(ready(mongodb_uri, database, receiver, **tick))
    make_due(database)
    channels = [slack(slack_server.url), channel(receiver.url, receiver.certificate)]
    for _ in range(2):
        hop(database, now=at(4), channels=channels).tick(["AAPL"])
    assert sum("webhook disabled" in post["text"] for post in slack_server.posts) == 1
    assert receiver.requests == (2 if point[1] == "before" else 1)
    assert Outbox(database).find(undelivered=True) == []


def test_two_ticks_at_once_that_get_410_notify_people_once(
    database: Mongo, mongodb_uri: str, receiver: TlsReceiver, slack_server: SlackEmulator
) -> None:
    receiver.fault = 410
    closes = dict.fromkeys(SYMBOLS, FIRING)
    ticks = [ready(mongodb_uri, database, receiver, now=at(3), closes=closes, slack=slack_server.url) for _ in range(2)]
    run(*ticks)
    assert [item.process.exitcode for item in ticks] == [0, 0]
    assert sum("webhook disabled" in post["text"] for post in slack_server.posts) == 1
    assert receiver.requests <= 2
    assert Outbox(database).find(undelivered=True) == []


def test_a_message_about_410_waits_for_slack(
    database: Mongo, receiver: TlsReceiver, slack_server: SlackEmulator
) -> None:
    receiver.fault, slack_server.fault = 410, Fault(500)
    channels = [slack(slack_server.url), channel(receiver.url, receiver.certificate)]
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=channels).tick(["AAPL"])
    slack_server.fault = None
    hop(database, now=at(4), channels=channels).tick(["AAPL"])
    assert slack_server.posts == [], "another delivery may still post it"
    database["alert_endpoints"].update_many({}, {"$set": {"report_at": utc_now()}})
    for _ in range(2):
        hop(database, now=at(4), channels=channels).tick(["AAPL"])
    assert sum("webhook disabled" in post["text"] for post in slack_server.posts) == 1


def test_an_operator_sees_disabled_webhooks_and_enables_one(
    database: Mongo, mongodb_uri: str, receiver: TlsReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = channel(receiver.url, receiver.certificate)
    monkeypatch.setenv("BARFLOW_MONGODB_URI", mongodb_uri)
    monkeypatch.setenv("BARFLOW_MONGODB_DATABASE", database.name)
    monkeypatch.setenv("BARFLOW_WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("BARFLOW_WEBHOOK_SECRET", SECRET)
    Endpoints(database).disable(sender.name, HOST, at(3))
    Endpoints(database).disable("webhook-00000000", "old.example.com", at(3))
    monkeypatch.setenv("BARFLOW_LAKE_URI", "lake")
    monkeypatch.setenv("COLUMNS", "200")

    def webhooks(*options: str) -> Any:
        return CliRunner().invoke(alerts_app, ["webhooks", *options])

    shown = webhooks().output
    assert shown.count("disabled since 2025-07-30 13:45 UTC") == 2
    assert shown.count("not in the settings") == 1
    assert "/alerts" not in shown
    assert webhooks("--enable", sender.name).exit_code == 0
    found = {item["name"]: item["disabled_at"] for item in json.loads(webhooks("--json").output)["webhooks"]}
    assert found[sender.name] is None
    assert found["webhook-00000000"]
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=[sender]).tick(["AAPL"])
    assert receiver.acted_ids() == [FIRED]
    refused = webhooks("--enable", sender.name).exception
    assert isinstance(refused, BadInputError)
    assert f"no disabled webhook has the name {sender.name}" in str(refused)
