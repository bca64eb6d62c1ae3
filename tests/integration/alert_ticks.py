"""Ticks for the tests of alerts: in the test's process, or in one that may kill itself at a chosen point."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from pydantic import SecretStr
from pymongo.database import Database

from barflow.alerts.channels import Channel, Receipts, SlackChannel
from barflow.alerts.delivery import Delivery
from barflow.alerts.endpoints import Endpoints
from barflow.alerts.journal import EvaluationJournal
from barflow.alerts.message import Message
from barflow.alerts.mutes import Mutes
from barflow.alerts.outbox import AlertStates, Outbox, PendingEvaluations
from barflow.alerts.rules import RuleBook
from barflow.alerts.rules_file import parse_rules
from barflow.alerts.tick import Alerts
from barflow.market.sessions import BAR, session
from barflow.pipeline import ingest
from barflow.pipeline.ingest import Ingest
from barflow.settings import Settings
from barflow.staging.connection import Document, connect
from barflow.staging.sessions import Staging
from barflow.twelvedata.client import Answer, SymbolError
from emulators.slack.server import TOKEN

DAY = date(2025, 7, 30)
NO_SLACK = "http://127.0.0.1:1/api/"
# The closes of a session by slot: flat, and then through 101 dollars.
FLAT = {0: 100.0, 1: 100.0}
FIRING = {**FLAT, 2: 102.0}
SYMBOLS = [f"S{number:02}" for number in range(40)]
LEVEL = {"id": "level_101", "kind": "level", "level": 101.0, "direction": "up", "cool_down_minutes": 0}
# The same as a condition, under the same id.
CONDITION = {"id": "level_101", "when": "crosses_above(close, 101.0) && high >= earlier(1).low", "cool_down_minutes": 0}
Closes = Mapping[int, float] | Sequence[float]
Result = Answer | SymbolError | BaseException


def rules(*found: Mapping[str, Any]) -> RuleBook:
    """Return a book of these rules, or of one rule that fires when a close reaches 101 dollars."""
    return parse_rules({"rule": [dict(rule) for rule in found or (LEVEL,)]})


def at(slot: int, day: date = DAY) -> datetime:
    """Return the open of a session's bar (UTC)."""
    traded = session(day)
    assert traded is not None
    return traded.opens + slot * BAR


def answer(symbol: str, closes: Closes, now: datetime, day: date = DAY) -> Answer:
    """Return an answer with these closes, by slot or from the open on. All prices of a bar are equal to its close."""
    by_slot = closes if isinstance(closes, Mapping) else dict(enumerate(closes))
    values = [
        {
            "datetime": f"{at(slot, day):%Y-%m-%d %H:%M:%S}",
            **dict.fromkeys(("open", "high", "low", "close"), f"{close}"),
            "volume": "1000",
        }
        for slot, close in by_slot.items()
    ]
    return Answer(symbol, {"symbol": symbol}, values, now)


class FakeClient:
    """A client that returns these results one after the other. It raises an exception in its turn."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results

    def time_series(self, *asked: object, on_raw: object) -> Any:
        for result in self.results:
            if isinstance(result, BaseException):
                raise result
            yield result


def hop(
    database: Database[Document],
    *results: Result,
    now: datetime,
    book: RuleBook | None = None,
    channels: Sequence[Channel] = (),
) -> Ingest:
    """Return ingest with alerts and a fake client. Between two of them, only the database remains."""
    client: Any = FakeClient(results)
    alerts = Alerts(database, book or rules(), channels, lambda: now)
    return Ingest(client, database, history_sessions=20, revision_sessions=2, clock=lambda: now, alerts=alerts)


def slack(url: str = NO_SLACK, digest_above: int = 10) -> SlackChannel:
    """Return the channel that posts to this address. No server listens at the default address."""
    return SlackChannel(
        Settings(slack_token=SecretStr(TOKEN), slack_channel="#alerts", slack_url=url, slack_digest_above=digest_above)
    )


def ids(database: Database[Document]) -> list[str]:
    """Return the ids of the alerts in the outbox, sorted."""
    return [item["_id"] for item in database["alerts"].find(sort=[("_id", 1)])]


def make_due(database: Database[Document]) -> None:
    """Make every undelivered alert due, as hours later: its next attempt, or its claim by a dead delivery."""
    for item in database["alerts"].find({"due_at": {"$exists": True}}):
        past = item["created_at"]
        states = {f"channels.{name}.next_at": past for name in item["channels"]}
        database["alerts"].update_one({"_id": item["_id"]}, {"$set": {"due_at": past, **states}})


def prepare(settings: Mapping[str, Any]) -> Callable[[], None]:
    """Return a tick for a process of its own.

    ``settings`` are uri, database, now, closes (by symbol and slot), and optionally rules, flush_bars (the bars of a
    batch), slack (its address), webhook (its address, and the file of its authority), apprise (a name and a URL) and
    die: ("Class.method", "before" or "after"). With it, the process sends itself SIGKILL at that method's first call,
    or at the one whose number is the third value.
    """
    now, closes = settings["now"], settings["closes"]
    answers = [answer(symbol, by_slot, now) for symbol, by_slot in closes.items()]
    channels: list[Channel] = [slack(settings["slack"], digest_above=1000)] if "slack" in settings else []
    if "webhook" in settings:
        import webhook_receivers

        channels.append(webhook_receivers.channel(*settings["webhook"]))
    if "apprise" in settings:
        import apprise_receivers

        channels.append(apprise_receivers.channel(*settings["apprise"]))
    book = rules(*settings.get("rules", ()))
    tick = hop(connect(settings["uri"], settings["database"]), *answers, now=now, book=book, channels=channels)
    if "flush_bars" in settings:
        ingest.FLUSH_BARS = settings["flush_bars"]
    if "die" in settings:
        die_at(*settings["die"])

    def run() -> None:
        tick.tick(list(closes))

    return run


def die_at(method: str, when: str, call: int = 1) -> None:
    """Kill this process before or after a call of a method."""
    alerts = (EvaluationJournal, Outbox, AlertStates, PendingEvaluations, Delivery, Endpoints, Mutes)
    owners = {kind.__name__: kind for kind in (Staging, *alerts)}
    owner, name = method.split(".")
    original, calls = getattr(owners[owner], name), iter(range(1, call + 1))

    def dying(*arguments: Any, **options: Any) -> Any:
        is_last = next(calls) == call
        if is_last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = original(*arguments, **options)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owners[owner], name, dying)


class FakeChannel:
    """A channel that accepts everything and records it."""

    name = "sns"
    digest_above = None

    def __init__(self) -> None:
        self.accepted: list[str] = []

    def send(self, messages: Sequence[Message]) -> Iterator[Receipts]:
        for message in messages:
            self.accepted.append(message.id)
            yield {message.id: None}
