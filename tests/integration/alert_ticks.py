"""How do the tests of alerts run a tick, in this process or in one that dies at a chosen point?

As a program, ``python alert_ticks.py SETTINGS`` with JSON: uri, database, now, closes (by symbol and slot), and
optionally slack (its address) and die: ["Class.method", "before" or "after"]. It prints "ready", waits for a line on
its standard input, and ticks; with ``die`` it sends itself SIGKILL at that method's first call.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pymongo.database import Database

from barflow.alerts.channels import Channel, SlackChannel
from barflow.alerts.delivery import Delivery
from barflow.alerts.outbox import AlertStates, Intents, Outbox
from barflow.alerts.rules import RuleBook, settle
from barflow.alerts.tick import Alerts
from barflow.market.sessions import BAR, session
from barflow.pipeline.ingest import Ingest
from barflow.settings import Settings
from barflow.staging.connection import Document, connect
from barflow.staging.sessions import Staging
from barflow.twelvedata.client import Answer, SymbolError
from emulators.slack.server import TOKEN

DAY = date(2025, 7, 30)
SLACK = "http://127.0.0.1:1/api/"
LEVEL = {"id": "level_101", "kind": "level", "level": 101.0, "direction": "up", "cool_down_minutes": 0}
Closes = Mapping[int, float] | Sequence[float]
Result = Answer | SymbolError | BaseException


def rules(*found: Mapping[str, Any]) -> RuleBook:
    """A book of these rules; without any, of the one that fires where a close reaches 101 dollars."""
    return settle({"rule": [dict(rule) for rule in found or (LEVEL,)]})


def at(slot: int, day: date = DAY) -> datetime:
    """The open of a session's bar (UTC)."""
    traded = session(day)
    assert traded is not None
    return traded.opens + slot * BAR


def answer(symbol: str, closes: Closes, now: datetime, day: date = DAY) -> Answer:
    """The vendor's answer with these closes, by slot or from the open on; every price of a bar is its close."""
    by_slot = closes if isinstance(closes, Mapping) else dict(enumerate(closes))
    values = [
        {
            "datetime": f"{at(int(slot), day):%Y-%m-%d %H:%M:%S}",
            **dict.fromkeys(("open", "high", "low", "close"), f"{close}"),
            "volume": "1000",
        }
        for slot, close in by_slot.items()
    ]
    return Answer(symbol, {"symbol": symbol}, values, now)


class Script:
    """A client that gives these results, one after the other; an exception among them is raised in its turn."""

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
    """Ingest, with alerts, on a client that gives these results: nothing of it outlives the tick but the database."""
    script: Any = Script(results)
    alerts = Alerts(database, book or rules(), channels, lambda: now)
    return Ingest(script, database, history_sessions=20, revision_sessions=2, clock=lambda: now, alerts=alerts)


def slack(url: str = SLACK) -> SlackChannel:
    return SlackChannel(Settings(slack_token=SecretStr(TOKEN), slack_channel="#alerts", slack_url=url))


def ids(database: Database[Document]) -> list[str]:
    return [item["_id"] for item in database["alerts"].find(sort=[("_id", 1)])]


def later(database: Database[Document]) -> None:
    """As if hours had gone by: what waits for another attempt, or for a dead deliverer's claim to run out, is due."""
    for item in database["alerts"].find({"due_at": {"$exists": True}}):
        past = item["created_at"]
        states = {f"channels.{name}.next_at": past for name in item["channels"]}
        database["alerts"].update_one({"_id": item["_id"]}, {"$set": {"due_at": past, **states}})


def start(uri: str, database: Database[Document], **settings: object) -> subprocess.Popen[str]:
    """A process that is ready to tick."""
    command = [sys.executable, str(Path(__file__)), json.dumps({"uri": uri, "database": database.name, **settings})]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def go(*processes: subprocess.Popen[str]) -> list[int]:
    """Lets processes that are ready tick at the same time; returns their exit codes."""
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    return [process.returncode for process in processes]


def die_at(method: str, when: str) -> None:
    owner = {kind.__name__: kind for kind in (Staging, Outbox, AlertStates, Intents, Delivery)}[method.split(".")[0]]
    name = method.split(".")[1]
    original = getattr(owner, name)

    def dying(*arguments: Any, **options: Any) -> None:
        if when == "after":
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)


def main(settings: dict[str, Any]) -> None:
    now = datetime.fromisoformat(settings["now"])
    closes: dict[str, dict[str, float]] = settings["closes"]
    answers = [
        answer(symbol, {int(slot): close for slot, close in values.items()}, now) for symbol, values in closes.items()
    ]
    ways = [slack(settings["slack"])] if "slack" in settings else []
    tick = hop(connect(settings["uri"], settings["database"]), *answers, now=now, channels=ways)
    if "die" in settings:
        die_at(*settings["die"])
    print("ready", flush=True)
    sys.stdin.readline()
    tick.tick(list(closes))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
