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

from pydantic import ValidationError
from pymongo import UpdateOne

from barflow.alerts.channels import Channel, ChannelDownError
from barflow.alerts.message import Message
from barflow.alerts.outbox import Outbox
from barflow.errors import BarflowError
from barflow.market.sessions import utc_now
from barflow.staging.connection import Document, mongo_errors

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
        more = True
        while more and time.monotonic() < ends:
            batch, more = self._claim(now)
            for channel in self.channels.values():
                waiting = [item for item in batch.values() if _waits(item["channels"].get(channel.name), now)]
                if waiting:
                    self._send(channel, waiting, now, ends, done)
            self._release(batch.values(), now)
        return done

    def _claim(self, now: datetime) -> tuple[dict[str, Document], bool]:
        """Some of what is due, by id, the oldest bar first; and whether there may be more."""
        due = {"due_at": {"$lte": now}}
        claim = secrets.token_hex(8)
        with mongo_errors("claim the alerts to send"):
            found = list(self._alerts.find(due, {"_id": 1}, sort=[("due_at", 1)], limit=CLAIMED_AT_ONCE))
            ids = {"_id": {"$in": [item["_id"] for item in found]}}
            if not found:
                return {}, False
            # Filtered again: another deliverer may have been faster with some of them.
            self._alerts.update_many({**ids, **due}, {"$set": {"claim": claim, "due_at": self._clock() + CLAIM}})
            claimed = self._alerts.find({**ids, "claim": claim}, sort=[("bar_start", 1), ("_id", 1)])
            return {item["_id"]: item for item in claimed}, len(found) == CLAIMED_AT_ONCE

    def _send(self, channel: Channel, waiting: list[Document], now: datetime, ends: float, done: Delivered) -> None:
        left = {item["_id"]: item for item in waiting}
        try:
            if channel.name in done.down:
                raise ChannelDownError(channel.name, "it failed a moment ago")
            for receipts in channel.send(self._messages(channel.name, left, now)):
                told = [left.pop(name) for name in receipts]
                self._sent(channel.name, [item for item in told if receipts[item["_id"]] is None])
                for item in told:
                    if (error := receipts[item["_id"]]) is not None:
                        self._failed(channel.name, item, error, now)
                done.sent += sum(error is None for error in receipts.values())
                if time.monotonic() > ends:
                    return
        except BarflowError as error:
            done.down.setdefault(channel.name, str(error))
            for item in left.values():
                self._failed(channel.name, item, done.down[channel.name], now, getattr(error, "retry_after", None))

    def _messages(self, channel: str, left: dict[str, Document], now: datetime) -> list[Message]:
        """The messages of these alerts. One that another version wrote, and this one cannot read, waits for that."""
        found = []
        for name, item in [*left.items()]:
            try:
                found.append(Message.model_validate(item["message"]))
            except ValidationError:
                self._failed(channel, left.pop(name), "the message is of another version of Barflow", now)
        return found

    def _sent(self, channel: str, told: list[Document]) -> None:
        """Only for whom the claim still holds: its next holder sends again and keeps what it learns."""
        now = self._clock()
        for item in told:
            item["channels"][channel]["delivered_at"] = now
        whole = [item for item in told if all(state["delivered_at"] for state in item["channels"].values())]
        change = {
            "$set": {f"channels.{channel}.delivered_at": now, f"channels.{channel}.last_error": None},
            "$inc": {f"channels.{channel}.attempts": 1},
        }
        with mongo_errors("note which alerts were sent"):
            if whole:
                self._alerts.update_many(_held(whole), {**change, "$unset": {"due_at": "", "claim": ""}})
            if rest := [item for item in told if item not in whole]:
                self._alerts.update_many(_held(rest), change)

    def _failed(self, channel: str, item: Document, error: str, now: datetime, wait: float | None = None) -> None:
        """Notes why, and when to try again: when the channel said, or each time later."""
        state = item["channels"][channel]
        state["attempts"] += 1
        state["last_error"] = error
        pause = min(FIRST_RETRY * 2 ** (min(state["attempts"], 10) - 1), LAST_RETRY)
        state["next_at"] = now + (pause if wait is None else timedelta(seconds=wait))

    def _release(self, batch: Iterable[Document], now: datetime) -> None:
        """Gives back the claims of what could not be sent whole, with what was learnt.

        What waits for a channel that is not set up here is left alone for a while.
        """
        operations = []
        for item in batch:
            waiting = {name: state for name, state in item["channels"].items() if state["delivered_at"] is None}
            if waiting:
                due = min(
                    state["next_at"] if name in self.channels else now + LAST_RETRY for name, state in waiting.items()
                )
                learnt = {f"channels.{name}": state for name, state in waiting.items()}
                operations.append(
                    UpdateOne(_held([item]), {"$set": {"due_at": due, **learnt}, "$unset": {"claim": ""}})
                )
        if operations:
            with mongo_errors("note which alerts were not sent"):
                self._alerts.bulk_write(operations, ordered=False)


def _held(items: list[Document]) -> Document:
    """These alerts, as far as the claim on them still holds."""
    return {"_id": {"$in": [item["_id"] for item in items]}, "claim": items[0]["claim"]}


def _waits(state: Document | None, now: datetime) -> bool:
    return state is not None and state["delivered_at"] is None and state["next_at"] <= now
