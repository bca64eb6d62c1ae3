"""Delivery: sends the alerts of the outbox by each channel, at least once, with back-off if a channel is down.

A delivery claims the alerts that are due, so that two deliveries at once normally do not send the same alert. A claim
expires when its holder dies. All times are wall-clock times.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import ValidationError
from pymongo import UpdateOne

from barflow.alerts.channels import Channel, ChannelDownError, EndpointGoneError, PeoplesChannel, gone_reason, kind_of
from barflow.alerts.message import Message
from barflow.alerts.mutes import is_muted
from barflow.alerts.outbox import Outbox
from barflow.errors import BarflowError
from barflow.market.sessions import utc_now
from barflow.staging.connection import Document, mongo_errors
from barflow.text import slack_escaped

# One digest of a channel holds at most as many alerts.
CLAIM_SIZE = 1000
CLAIM_TERM = timedelta(minutes=2)
# A delivery stops well before its claim expires. The next one sends the rest.
SENDING_SECONDS = 60.0
FIRST_RETRY = timedelta(minutes=1)
LAST_RETRY = timedelta(minutes=15)
# The limit of what a channel can ask for: a receiver must not hold back its alerts for years.
LONGEST_WAIT = timedelta(hours=1)


@dataclass
class DeliveryReport:
    """What a delivery did: how many messages the channels accepted, and the error of each channel that is down.

    ``held`` is whether a channel's alerts wait for the digest at the end of the tick. ``notes`` report the mutes that
    ended.
    """

    sent: int = 0
    held: bool = False
    down: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Delivery:
    """Sends the alerts that are due by these channels.

    A channel with ``digest_above`` sends at most that many alerts of a tick one by one. More of them wait for
    the end of the tick, and the channel sends them as one digest. The outbox records each of them.
    """

    def __init__(self, outbox: Outbox, channels: Iterable[Channel], clock: Callable[[], datetime] = utc_now) -> None:
        self._alerts, self._endpoints, self._mutes = outbox.alerts, outbox.endpoints, outbox.mutes
        self.channels = {channel.name: channel for channel in channels}
        self._clock = clock
        self._shown: Counter[str] = Counter()
        self._down: dict[str, str] = {}

    def begin_tick(self) -> None:
        """Count the alerts that channels show one by one from zero again, and try the channels that were down."""
        self._shown.clear()
        self._down.clear()

    def run(self, *, more_follow: bool = False) -> DeliveryReport:
        """Send what is due now, for at most ``SENDING_SECONDS``. A channel that is down does not stop the others.

        ``more_follow`` says that the tick goes on: what has to be in a digest is not sent yet.
        """
        report = DeliveryReport()
        now, deadline = self._clock(), time.monotonic() + SENDING_SECONDS
        if not more_follow:
            self._down.clear()  # one more try in this tick
        disabled = self._disabled()
        more = True
        while more and time.monotonic() < deadline:
            batch, more = self._claim(now)
            sent_before = report.sent
            self._mute(batch.values(), now)
            for channel in self.channels.values():
                due = [item for item in batch.values() if _is_due(item["channels"].get(channel.name), now)]
                if due and channel.name in disabled:
                    report.down[channel.name] = disabled[channel.name]
                    self._drop(channel.name, due)
                elif due and more_follow and self._needs_digest(channel, due):
                    report.held = True
                elif due and time.monotonic() < deadline:
                    self._send(channel, due, now, deadline, report)
            self._release(batch.values(), now)
            if report.held and report.sent == sent_before:
                break  # the next claim would be of the same alerts
        self._report_to_people(report)
        return report

    def _disabled(self) -> dict[str, str]:
        """Return by channel why each disabled webhook gets no alerts."""
        if not any(kind_of(name) == "webhook" for name in self.channels):
            return {}
        found = self._endpoints.disabled().items()
        return {name: gone_reason(f"The webhook at {item['host']}", name) for name, item in found}

    def _report_to_people(self, report: DeliveryReport) -> None:
        """Report which webhooks are disabled and which mutes have ended, if that is not reported yet.

        The first channel of people gets the report. Without one, mutes are reported in the tick's notes alone.
        """
        people = next((channel for channel in self.channels.values() if isinstance(channel, PeoplesChannel)), None)

        def post(text: str) -> None:
            if people:
                people.post(f":bell: {slack_escaped(text)}")
            report.notes.append(text)

        try:
            self._mutes.report(self._clock(), post)
            if people:
                self._endpoints.report(self._clock(), people.post)
        except BarflowError as error:
            report.down.setdefault(people.name if people else "mutes", str(error))

    def _mute(self, claimed: Collection[Document], now: datetime) -> None:
        """End the delivery of the claimed alerts that are muted now, by every channel that waits for them."""
        if not claimed:
            return
        mutes = self._mutes.active(self._clock())  # read after the claim, so that a new mute stops all later ones
        muted = [item for item in claimed if is_muted(mutes, item["rule"], item["symbol"])]
        for name in self.channels:
            if due := [item for item in muted if _is_due(item["channels"].get(name), now)]:
                self._give_up(name, due, "muted_at")

    def _needs_digest(self, channel: Channel, due: Sequence[object]) -> bool:
        """Return whether the channel would show more alerts of this tick than its limit."""
        limit = channel.digest_above
        return limit is not None and self._shown[channel.name] + len(due) > limit

    def _claim(self, now: datetime) -> tuple[dict[str, Document], bool]:
        """Claim alerts that are due. Return them by id, oldest bar first, and whether there may be more."""
        due = {"due_at": {"$lte": now}}
        claim = secrets.token_hex(8)
        with mongo_errors("claim the alerts to send"):
            found = list(self._alerts.find(due, {"_id": 1}, sort=[("due_at", 1)], limit=CLAIM_SIZE))
            ids = {"_id": {"$in": [item["_id"] for item in found]}}
            if not found:
                return {}, False
            # Filtered again, since another delivery may have claimed some of them in between.
            self._alerts.update_many({**ids, **due}, {"$set": {"claim": claim, "due_at": self._clock() + CLAIM_TERM}})
            claimed = self._alerts.find({**ids, "claim": claim}, sort=[("bar_start", 1), ("_id", 1)])
            return {item["_id"]: item for item in claimed}, len(found) == CLAIM_SIZE

    def _send(
        self, channel: Channel, due: list[Document], now: datetime, deadline: float, report: DeliveryReport
    ) -> None:
        remaining = {item["_id"]: item for item in due}
        try:
            if channel.name in self._down:
                raise ChannelDownError(channel.name, "it failed a moment ago")
            messages = self._messages(channel.name, remaining, now)
            digest = len(messages) > 1 and self._needs_digest(channel, messages)
            self._shown[channel.name] += len(messages)
            for receipts in channel.send_digest(messages) if digest else channel.send(messages):
                answered = [remaining.pop(alert_id) for alert_id in receipts]
                self._record_sent(channel.name, [item for item in answered if receipts[item["_id"]] is None])
                for item in answered:
                    if (error := receipts[item["_id"]]) is not None:
                        self._record_failure(channel.name, item, error, now)
                report.sent += sum(error is None for error in receipts.values())
                if time.monotonic() > deadline:
                    return
        except EndpointGoneError as error:
            report.down[channel.name] = self._down[channel.name] = str(error)
            self._endpoints.disable(channel.name, error.host, now)
            self._drop(channel.name, [*remaining.values()])
        except BarflowError as error:
            report.down[channel.name] = self._down.setdefault(channel.name, str(error))
            wait = getattr(error, "retry_after", None)
            for item in remaining.values():
                self._record_failure(channel.name, item, report.down[channel.name], now, wait)

    def _messages(self, channel: str, remaining: dict[str, Document], now: datetime) -> list[Message]:
        """Return the messages of these alerts.

        A message that another version of Barflow wrote may not be readable here. It is taken out of ``remaining`` and
        waits for a delivery of that version.
        """
        found = []
        for alert_id, item in [*remaining.items()]:
            try:
                found.append(Message.model_validate(item["message"]))
            except ValidationError:
                reason = "another version of Barflow wrote the message"
                self._record_failure(channel, remaining.pop(alert_id), reason, now)
        return found

    def _record_sent(self, channel: str, sent: list[Document]) -> None:
        """Record the alerts that a channel accepted, if the claim still holds.

        Where it expired, its next holder sends the alert again and records that.
        """
        now = self._clock()
        for item in sent:
            item["channels"][channel]["delivered_at"] = now
        self._record_end(channel, sent, {"delivered_at": now, "last_error": None}, attempts=1)

    def _drop(self, channel: str, items: list[Document]) -> None:
        """Record that a disabled webhook does not get these alerts. No later delivery tries them."""
        self._give_up(channel, items, "dropped_at", last_error="the endpoint answered 410 Gone")

    def _give_up(self, channel: str, items: list[Document], name: str, **values: str) -> None:
        """Record under a name when and why a channel does not get these alerts. No later delivery tries them."""
        now = self._clock()
        for item in items:
            item["channels"][channel][name] = now
        self._record_end(channel, items, {name: now, **values})

    def _record_end(self, channel: str, items: list[Document], values: Document, attempts: int = 0) -> None:
        """Record the end of these alerts' delivery by a channel. Release those that wait for no other channel."""
        complete = [item for item in items if all(map(_is_done, item["channels"].values()))]
        change = {
            "$set": {f"channels.{channel}.{name}": value for name, value in values.items()},
            "$inc": {f"channels.{channel}.attempts": attempts},
        }
        with mongo_errors("record which alerts were sent"):
            if complete:
                self._alerts.update_many(_claimed(complete), {**change, "$unset": {"due_at": "", "claim": ""}})
            if rest := [item for item in items if item not in complete]:
                self._alerts.update_many(_claimed(rest), change)

    def _record_failure(
        self, channel: str, item: Document, error: str, now: datetime, wait: float | None = None
    ) -> None:
        """Record the error and the time of the next attempt: after ``wait`` seconds, or with a doubling pause."""
        state = item["channels"][channel]
        state["attempts"] += 1
        state["last_error"] = error
        pause = min(FIRST_RETRY * 2 ** (min(state["attempts"], 10) - 1), LAST_RETRY)
        state["next_at"] = now + (pause if wait is None else min(timedelta(seconds=wait), LONGEST_WAIT))

    def _release(self, batch: Iterable[Document], now: datetime) -> None:
        """Release the claims on alerts that a channel has not accepted yet, and store what their attempts gave.

        An alert that waits for a channel that is not set up here is not due again for a while.
        """
        operations = []
        for item in batch:
            waiting = {name: state for name, state in item["channels"].items() if not _is_done(state)}
            if waiting:
                due = min(
                    state["next_at"] if name in self.channels else now + LAST_RETRY for name, state in waiting.items()
                )
                states = {f"channels.{name}": state for name, state in waiting.items()}
                operations.append(
                    UpdateOne(_claimed([item]), {"$set": {"due_at": due, **states}, "$unset": {"claim": ""}})
                )
        if operations:
            with mongo_errors("record which alerts were not sent"):
                self._alerts.bulk_write(operations, ordered=False)


def _claimed(items: list[Document]) -> Document:
    """Return the filter for these alerts as long as the claim on them holds."""
    return {"_id": {"$in": [item["_id"] for item in items]}, "claim": items[0]["claim"]}


def _is_done(state: Document) -> bool:
    return bool(state["delivered_at"] or state.get("dropped_at") or state.get("muted_at"))


def _is_due(state: Document | None, now: datetime) -> bool:
    return state is not None and not _is_done(state) and state["next_at"] <= now
