"""Many alerts at once: one digest in Slack, one alert for a feed that is down, and each alert for bots."""

from __future__ import annotations

from pathlib import Path

import pytest
from alert_ticks import FIRING, FLAT, SYMBOLS, FakeChannel, answer, at, hop, ids, make_due, rules, slack
from apprise_receivers import JsonReceiver
from pymongo.database import Database

from barflow.alerts.message import Message
from barflow.alerts.outbox import Outbox
from barflow.errors import UnavailableError
from barflow.staging.connection import Document
from emulators.slack.server import Fault, SlackEmulator

Mongo = Database[Document]


def test_a_storm_is_one_digest_for_people_and_each_alert_on_its_own_for_bots(
    database: Mongo, slack_server: SlackEmulator, tmp_path: Path
) -> None:
    names = [f"S{number}" for number in range(500)]
    bots = FakeChannel()
    fired = [answer(symbol, FIRING, at(3)) for symbol in names]
    with JsonReceiver(tmp_path) as service:
        channels = [slack(slack_server.url), service.channel(digest_above=10), bots]
        hop(database, *fired, now=at(3), channels=channels).tick(names)
    [digest] = service.taken
    assert digest["title"] == "500 alerts at once"
    assert sorted(bots.accepted) == ids(database)
    assert len(bots.accepted) == len(set(bots.accepted)) == 500
    [post] = slack_server.posts
    assert post["text"].startswith(":warning: *500 alerts at once*: `level_101` 500\n")
    assert post["text"].count("\n") == 6
    for sent in database["alerts"].find():
        attempts = {name.partition("-")[0]: state["attempts"] for name, state in sent["channels"].items()}
        assert attempts == {"sns": 1, "slack": 1, "apprise": 1, "sse": 1}
        assert all(state["delivered_at"] for state in sent["channels"].values())
        assert "due_at" not in sent


def test_the_alerts_of_a_storm_that_slack_refuses_wait_and_are_one_digest_later(
    database: Mongo, slack_server: SlackEmulator
) -> None:
    slack_server.fault = Fault("channel_not_found", times=1)
    names = SYMBOLS[:11]
    hop(
        database, *[answer(symbol, FIRING, at(3)) for symbol in names], now=at(3), channels=[slack(slack_server.url)]
    ).tick(names)
    assert slack_server.posts == []
    assert len(Outbox(database).find(undelivered=True)) == 11
    make_due(database)
    hop(database, now=at(3), channels=[slack(slack_server.url)]).tick(names)
    assert [post["text"].split("*")[1] for post in slack_server.posts] == ["11 alerts at once"]
    assert Outbox(database).find(undelivered=True) == []


def test_alerts_up_to_the_limit_are_posted_one_by_one(database: Mongo, slack_server: SlackEmulator) -> None:
    names = SYMBOLS[:10]
    hop(
        database, *[answer(symbol, FIRING, at(3)) for symbol in names], now=at(3), channels=[slack(slack_server.url)]
    ).tick(names)
    assert len(slack_server.posts) == 10


def test_a_feed_that_is_down_is_one_alert_of_the_feed(database: Mongo) -> None:
    book = rules({"id": "stale", "kind": "silence", "minutes": 20})
    names = SYMBOLS[:5]
    hop(database, *[answer(symbol, FLAT, at(2)) for symbol in names], now=at(2), book=book).tick(names)
    for slot in (6, 7, 9):  # a later tick, and a failed one, find the same id
        answers = [answer(symbol, FLAT, at(slot)) for symbol in names]
        if slot == 7:
            broken = hop(database, UnavailableError("Twelve Data does not answer"), now=at(slot), book=book)
            with pytest.raises(UnavailableError, match="does not answer"):
                broken.tick(names)
        else:
            hop(database, *answers, now=at(slot), book=book).tick(names)
    assert ids(database) == ["stale|*|2025-07-30T13:40:00Z"]
    [alert] = database["alerts"].find()
    message = Message.model_validate(alert["message"])
    assert (message.symbol, message.price) == ("*", None)
    assert message.text == "the feed has had no bar of most symbols for 20 min of the open session"


def test_a_silence_of_few_symbols_is_an_alert_of_each(database: Mongo) -> None:
    book = rules({"id": "stale", "kind": "silence", "minutes": 20})
    names = SYMBOLS[:5]
    hop(database, *[answer(symbol, FLAT, at(2)) for symbol in names], now=at(2), book=book).tick(names)
    alive = [answer(symbol, [100.0] * 6, at(6)) for symbol in names[:3]]
    quiet = [answer(symbol, FLAT, at(6)) for symbol in names[3:]]
    hop(database, *alive, *quiet, now=at(6), book=book).tick(names)
    assert ids(database) == sorted(f"stale|{symbol}|2025-07-30T13:40:00Z" for symbol in names[3:])
