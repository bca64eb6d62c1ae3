"""How does an alert leave the outbox? At least once by each channel, with back-off where a channel is down.

A deliverer claims what is due for a while, so that two of them do not send the same in the normal case; a claim that
its holder did not live to end runs out. Times are the wall clock's.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pymongo import UpdateOne

from barflow.alert_message import Message
from barflow.alert_store import Outbox
from barflow.errors import BarflowError
from barflow.mongo import Document, mongo_errors
from barflow.notify import Channel, ChannelDownError
from barflow.sessions import utc_now

CLAIMED_AT_ONCE = 200
CLAIM = timedelta(minutes=2)
# A claim is ended well before it runs out; what is left is sent by the next one.
SENDING_SECONDS = 60.0
FIRST_RETRY = timedelta(minutes=1)
LAST_RETRY = timedelta(minutes=15)


@dataclass
class Delivered:
    """What a delivery did: how often a message was sent by a channel, and what each channel that failed said."""

    sent: int = 0
    down: dict[str, str] = field(default_factory=dict)


class Delivery:
    """Sends what is due, by these channels."""

    def __init__(self, outbox: Outbox, channels: Iterable[Channel], clock: Callable[[], datetime] = utc_now) -> None:
        self._alerts = outbox.alerts
        self.channels = {channel.name: channel for channel in channels}
        self._clock = clock

    def run(self) -> Delivered:
        """Sends all that is due now, as far as its time goes. A channel that fails stops nothing but itself."""
        done = Delivered()
        now, ends = self._clock(), time.monotonic() + SENDING_SECONDS
        while time.monotonic() < ends and (batch := self._claim(now)):
            for channel in self.channels.values():
                waiting = [item for item in batch if _waits(item["channels"].get(channel.name), now)]
                if waiting:
                    self._send(channel, waiting, now, ends, done)
            self._release(batch, now)
        return done

    def _claim(self, now: datetime) -> list[Document]:
        due = {"due_at": {"$lte": now}}
        claim = secrets.token_hex(8)
        with mongo_errors("claim the alerts to send"):
            found = self._alerts.find(due, {"_id": 1}, sort=[("due_at", 1)], limit=CLAIMED_AT_ONCE)
            ids = {"_id": {"$in": [item["_id"] for item in found]}}
            if not ids["_id"]["$in"]:
                return []
            # Filtered again: another deliverer may have been faster with some of them.
            self._alerts.update_many({**ids, **due}, {"$set": {"claim": claim, "due_at": self._clock() + CLAIM}})
            return list(self._alerts.find({**ids, "claim": claim}, sort=[("bar_start", 1), ("_id", 1)]))

    def _send(self, channel: Channel, waiting: list[Document], now: datetime, ends: float, done: Delivered) -> None:
        left = {item["_id"]: item for item in waiting}
        try:
            if channel.name in done.down:
                raise ChannelDownError(channel.name, "it failed a moment ago")
            for receipts in channel.send([Message.model_validate(item["message"]) for item in waiting]):
                told = [left.pop(name) for name in receipts]
                for item in told:
                    _note(item["channels"][channel.name], receipts[item["_id"]], self._clock())
                self._keep(channel.name, told)
                done.sent += sum(error is None for error in receipts.values())
                if time.monotonic() > ends:
                    return
        except BarflowError as error:
            done.down.setdefault(channel.name, str(error))
            wait = getattr(error, "retry_after", None)
            for item in left.values():
                state = item["channels"][channel.name]
                _note(state, done.down[channel.name], now)
                if wait is not None:
                    state["next_at"] = now + timedelta(seconds=wait)
            self._keep(channel.name, list(left.values()))

    def _keep(self, channel: str, told: list[Document]) -> None:
        """Only for whom the claim still holds: its next holder sends again and keeps what it learns."""
        operations = [
            UpdateOne(
                {"_id": item["_id"], "claim": item["claim"]},
                {"$set": {f"channels.{channel}": item["channels"][channel]}},
            )
            for item in told
        ]
        if operations:
            with mongo_errors("note which alerts were sent"):
                self._alerts.bulk_write(operations, ordered=False)

    def _release(self, batch: list[Document], now: datetime) -> None:
        """Gives the claims back. What waits for a channel that is not set up here is left alone for a while."""
        operations = []
        for item in batch:
            wanted = [
                state["next_at"] if name in self.channels else now + LAST_RETRY
                for name, state in item["channels"].items()
                if state["delivered_at"] is None
            ]
            change: Document = {"$unset": {"claim": ""} if wanted else {"claim": "", "due_at": ""}}
            if wanted:
                change["$set"] = {"due_at": min(wanted)}
            operations.append(UpdateOne({"_id": item["_id"], "claim": item["claim"]}, change))
        with mongo_errors("note which alerts were sent"):
            self._alerts.bulk_write(operations, ordered=False)


def _waits(state: Document | None, now: datetime) -> bool:
    return state is not None and state["delivered_at"] is None and state["next_at"] <= now


def _note(state: Document, error: str | None, now: datetime) -> None:
    """What an attempt came to: delivered, or the error and when to try again, each time later."""
    state["attempts"] += 1
    state["last_error"] = error
    if error is None:
        state["delivered_at"] = now
    else:
        state["next_at"] = now + min(FIRST_RETRY * 2 ** (min(state["attempts"], 10) - 1), LAST_RETRY)
