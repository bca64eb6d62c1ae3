"""A mute stops the delivery of alerts for a time, changes no alert, and is never forgotten (guarantee G6)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import alert_ticks
import pytest
from alert_ticks import FIRING, FLAT, SYMBOLS, FakeChannel, answer, at, hop, ids, make_due, slack
from processes import run, run_killed, start
from pymongo.database import Database
from typer.testing import CliRunner

from barflow.alerts import delivery
from barflow.alerts.channels import Receipts
from barflow.alerts.message import Message
from barflow.alerts.mutes import Mutes
from barflow.alerts.outbox import Outbox
from barflow.cli.alerts import alerts_app
from barflow.errors import BadInputError
from barflow.market.sessions import utc_now
from barflow.staging.connection import Document
from emulators.slack.server import Fault, SlackEmulator

Mongo = Database[Document]
RULE = "level_101"
HOUR = timedelta(hours=1)


def add(database: Mongo, rule: str | None = RULE, *symbols: str, term: timedelta = HOUR) -> None:
    Mutes(database).add(rule, symbols, utc_now() + term, "ann", "earnings week")


def states(database: Mongo, channel: str) -> dict[str, str]:
    """Return by symbol how far a channel has its alert."""
    found = {}
    for item in database["alerts"].find():
        state = item["channels"][channel]
        done = [name for name in ("delivered_at", "muted_at") if state.get(name)]
        found[item["symbol"]] = done[0] if len(done) == 1 else "waits" if not done else "both"
    return found


@pytest.mark.parametrize(
    ("rule", "symbols", "muted"),
    [(RULE, (), SYMBOLS[:4]), (None, ("S01",), ["S01"]), (RULE, ("S01", "S03"), ["S01", "S03"]), ("other", (), [])],
)
def test_a_muted_alert_is_found_and_stored_but_not_sent(
    database: Mongo, rule: str | None, symbols: tuple[str, ...], muted: list[str]
) -> None:
    add(database, rule, *symbols)
    bots, names = FakeChannel(), SYMBOLS[:4]
    fired = [answer(symbol, FIRING, at(3)) for symbol in names]
    report = hop(database, *fired, now=at(3), channels=[bots]).tick(names)
    assert report.alerts == 4
    assert ids(database) == [f"{RULE}|{symbol}|2025-07-30T13:40:00Z" for symbol in names], "the ids do not change"
    assert {item.split("|")[1] for item in bots.accepted} == {*names} - {*muted}
    assert [symbol for symbol, state in states(database, "sns").items() if state == "muted_at"] == muted
    assert all(state == "delivered_at" for state in states(database, "sse").values()), "the outbox has them all"
    assert Outbox(database).undelivered_age() == 0, "no alarm"
    Mutes(database).end(rule, symbols, "ann", utc_now())
    hop(database, now=at(4), channels=[bots]).tick(names)
    assert len(bots.accepted) == 4 - len(muted), "it is not sent later"


def test_an_alert_that_waits_for_a_channel_can_be_muted(database: Mongo, slack_server: SlackEmulator) -> None:
    slack_server.fault = Fault(500)
    hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=[slack(slack_server.url)]).tick(["AAPL"])
    add(database)
    slack_server.fault = None
    make_due(database)
    hop(database, now=at(4), channels=[slack(slack_server.url)]).tick(["AAPL"])
    assert slack_server.posts == []
    assert states(database, "slack") == {"AAPL": "muted_at"}


class MutesWhileItSends(FakeChannel):
    """A channel during whose first message an operator mutes the rule."""

    def __init__(self, database: Mongo) -> None:
        super().__init__()
        self.database = database

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        if not self.accepted:
            add(self.database)
        yield from super().send(messages)


def test_a_mute_during_a_delivery_stops_all_that_is_claimed_later(
    database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "CLAIM_SIZE", 2)
    names, channel = SYMBOLS[:5], MutesWhileItSends(database)
    hop(database, *[answer(symbol, FIRING, at(3)) for symbol in names], now=at(3), channels=[channel]).tick(names)
    found = states(database, "sns")
    assert [*found.values()].count("delivered_at") == len(channel.accepted) == 2, "what was claimed before"
    assert [*found.values()].count("muted_at") == 3


def prepare_mute(settings: dict[str, Any]) -> Any:
    """Return what mutes the rule, for a process of its own."""
    database = alert_ticks.connect(settings["uri"], settings["database"])
    return lambda: add(database)


def test_a_mute_that_races_with_ticks_leaves_each_alert_sent_or_muted(
    database: Mongo, mongodb_uri: str, slack_server: SlackEmulator
) -> None:
    shared = {"uri": mongodb_uri, "database": database.name}
    closes = dict.fromkeys(SYMBOLS, FIRING)
    ticks = [start(alert_ticks.prepare, **shared, now=at(3), closes=closes, slack=slack_server.url) for _ in range(2)]
    mute = start(prepare_mute, **shared)
    run(*ticks, mute)
    assert [item.process.exitcode for item in (*ticks, mute)] == [0, 0, 0]
    found = states(database, "slack")
    assert len(found) == len(SYMBOLS)
    assert {*found.values()} <= {"delivered_at", "muted_at"}
    assert len(slack_server.posts) == [*found.values()].count("delivered_at"), "a muted one was not sent"
    assert Outbox(database).find(undelivered=True) == []


@pytest.mark.parametrize(
    "point", [("Delivery._claim", "after"), ("Mutes.active", "after"), ("Delivery._mute", "after")]
)
def test_a_tick_killed_at_a_mute_sends_nothing_of_it(
    database: Mongo, mongodb_uri: str, slack_server: SlackEmulator, point: tuple[str, str]
) -> None:
    add(database)
    hop(database, answer("AAPL", FLAT, at(2)), now=at(2)).tick(["AAPL"])
    tick = {"now": at(3), "closes": {"AAPL": FIRING}, "slack": slack_server.url, "die": point}
    run_killed(start(alert_ticks.prepare, uri=mongodb_uri, database=database.name, **tick))
    make_due(database)
    hop(database, answer("AAPL", FIRING, at(4)), now=at(4), channels=[slack(slack_server.url)]).tick(["AAPL"])
    assert states(database, "slack") == {"AAPL": "muted_at"}
    assert slack_server.posts == []


# Its end.


def expire(database: Mongo) -> None:
    past = utc_now() - timedelta(seconds=1)
    database["mutes"].update_many({}, {"$set": {"until": past, "report_at": past}})


def test_a_mute_that_ended_is_reported_once_and_alerts_are_sent_again(
    database: Mongo, slack_server: SlackEmulator
) -> None:
    channels = [slack(slack_server.url)]
    add(database, RULE, "AAPL")
    assert "alerts" not in hop(database, now=at(2), channels=channels).tick(["AAPL"]).notes
    expire(database)
    slack_server.fault = Fault(500)
    hop(database, now=at(2), channels=channels).tick(["AAPL"])
    slack_server.fault = None
    database["mutes"].update_many({}, {"$set": {"report_at": utc_now()}})
    report = hop(database, answer("AAPL", FIRING, at(3)), now=at(3), channels=channels).tick(["AAPL"])
    [note] = report.notes["alerts"]
    assert note.startswith("the mute of level_101 for AAPL (ann: earnings week) ended at ")
    for _ in range(2):
        database["mutes"].update_many({}, {"$set": {"report_at": utc_now()}})
        assert "alerts" not in hop(database, now=at(4), channels=channels).tick(["AAPL"]).notes
    texts = [post["text"] for post in slack_server.posts]
    assert sorted(texts) == [f":bell: {note}", next(text for text in texts if "rose to" in text)]


def test_without_a_channel_of_people_the_tick_alone_reports_the_end(database: Mongo) -> None:
    add(database)
    expire(database)
    assert len(hop(database, now=at(3), channels=[FakeChannel()]).tick(["AAPL"]).notes["alerts"]) == 1
    assert "alerts" not in hop(database, now=at(3), channels=[FakeChannel()]).tick(["AAPL"]).notes


# Commands.


@pytest.fixture
def commands(database: Mongo, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {"MONGODB_URI": mongodb_uri, "MONGODB_DATABASE": database.name, "LAKE_URI": "lake"}.items():
        monkeypatch.setenv(f"BARFLOW_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *given: CliRunner().invoke(alerts_app, [*given])


def test_an_operator_mutes_sees_and_unmutes_and_every_step_stays_on_record(database: Mongo, commands: Any) -> None:
    assert commands("mute", "gap_5pct", "--until", "8h", "--reason", "earnings week", "--by", "ann").exit_code == 0
    assert commands("mute", "TSLA", "--until", f"{utc_now() + HOUR:%Y-%m-%dT%H:%MZ}", "--by", "bob").exit_code == 0
    given = json.loads(commands("mute", "gap_5pct", "--symbols", "AAPL", "--until", "1d", "--json").output)["mute"]
    assert (given["rule"], given["symbols"]) == ("gap_5pct", ["AAPL"])
    assert given["by"], "the user of the operating system"
    shown = commands("mutes").output
    for text in ("gap_5pct for AAPL", "TSLA", "ann", "earnings week", "active"):
        assert text in shown
    assert commands("unmute", "gap_5pct", "--symbols", "AAPL", "--by", "bob").exit_code == 0
    assert "ended 1 mute of gap_5pct" in commands("unmute", "gap_5pct", "--by", "bob").output
    assert [item["symbols"] for item in json.loads(commands("mutes", "--json").output)["mutes"]] == [["TSLA"]]
    record = json.loads(commands("mutes", "--all", "--json").output)["mutes"]
    assert [(item["rule"], item["ended_by"]) for item in record][:2] == [("gap_5pct", "bob"), (None, None)]
    assert "is not muted" in str(commands("unmute", "gap_5pct").exception)


def test_a_second_mute_of_the_same_alerts_replaces_the_first(database: Mongo, commands: Any) -> None:
    for term in ("9h", "10m"):
        assert commands("mute", "gap_5pct", "--until", term, "--by", "ann").exit_code == 0
    [active] = Mutes(database).active(utc_now())
    assert active["until"] < utc_now() + HOUR
    assert [item["ended_by"] for item in Mutes(database).all()] == [None, "ann"]


def test_of_two_mutes_at_the_same_time_one_stays(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    end, waiting = Mutes._end, [1]

    def after_the_other(*given: Any) -> int:
        if waiting:
            waiting.clear()
            add(database, term=2 * HOUR)
        return end(*given)

    monkeypatch.setattr(Mutes, "_end", after_the_other)
    add(database)
    [active] = Mutes(database).active(utc_now())
    assert active["until"] > utc_now() + HOUR, "the later one"
    assert len(Mutes(database).all()) == 2


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("gap_5pc", "--until", "1h"), "gap_5pc is no rule and no symbol that is evaluated; the rules are gap_5pct"),
        (("APPL", "--until", "1h"), "APPL is no rule and no symbol"),
        (("AAPL,MSFT", "--until", "1h"), "AAPL,MSFT is no rule"),
        (("AAPL", "--symbols", "MSFT", "--until", "1h"), "--symbols: AAPL is no rule"),
        (("gap_5pct", "--until", "tomorrow"), "--until tomorrow: give a duration such as 90m"),
        (("gap_5pct", "--until", "2026-12-01T14:30"), "give a duration"),
        (("gap_5pct", "--until", "0h"), "give a duration"),
        (("gap_5pct", "--until", "2020-01-01T00:00Z"), "give a time from now on"),
        (("gap_5pct", "--until", "9999d"), "at most 366 days away"),
        (("gap_5pct", "--until", "1h", "--reason", "a\x1b[2J"), "--reason must hold only visible characters"),
        (("gap_5pct", "--until", "1h", "--by", "x" * 201), "--by must have at most 200 characters"),
    ],
)
def test_a_mute_of_nothing_is_refused(database: Mongo, commands: Any, given: tuple[str, ...], error: str) -> None:
    raised = commands("mute", *given).exception
    assert isinstance(raised, BadInputError)
    assert error in str(raised)
    assert database["mutes"].count_documents({}) == 0
