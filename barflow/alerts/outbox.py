"""Where are alerts and their state kept? The outbox, each symbol's state, and what a tick is about to store.

The order of writes makes one event one alert whatever a tick dies of: first what is about to be stored, then the
bars, then the outbox, where an id that is there already stays as it is, then the state, then the first is taken
back. Whoever repeats a part of it finds the same ids.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from barflow.alerts.history import Seen, SymbolState
from barflow.alerts.message import Message
from barflow.market.sessions import utc_now
from barflow.staging.connection import DUPLICATE_KEY, Document, mongo_errors

EPOCH = datetime.fromtimestamp(0, UTC)
KEPT = timedelta(days=90)
# The channel that is the outbox itself: its readers follow the collection.
OUTBOX_CHANNEL = "sse"


class Outbox:
    """The collection ``alerts``. A document's ``_id`` is the alert's stable id.

    ``channels`` has, by channel, ``delivered_at``, ``attempts``, ``last_error`` and ``next_at``; ``due_at`` is when
    one of them next wants an attempt, and missing once all have it.
    """

    def __init__(self, database: Database[Document]) -> None:
        self.alerts = database["alerts"]

    def ensure(self) -> None:
        with mongo_errors("prepare its collections"):
            self.alerts.create_index("due_at")
            self.alerts.create_index([("symbol", 1), ("bar_start", -1)])
            self.alerts.create_index("created_at", expireAfterSeconds=int(KEPT.total_seconds()))

    def add(self, messages: Iterable[tuple[Message, Sequence[str]]]) -> int:
        """Puts in the messages that are not there yet, each with the channels it is for. Returns how many were new."""
        documents = [_document(message, channels) for message, channels in messages]
        if not documents:
            return 0
        with mongo_errors("keep the alerts"):
            try:
                self.alerts.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                return len(documents) - len(_duplicates(error))
        return len(documents)

    def undelivered_age(self) -> float:
        """Seconds since the oldest alert was noticed that a channel still has to take; 0 where none waits."""
        waits = {"due_at": {"$gt": EPOCH}}  # a comparison that the index answers, unlike $exists
        with mongo_errors("look for alerts that wait"):
            oldest = self.alerts.find_one(waits, {"created_at": 1}, sort=[("created_at", 1)])
        return max(0.0, (utc_now() - oldest["created_at"]).total_seconds()) if oldest else 0.0

    def find(
        self,
        symbols: Sequence[str] | None = None,
        rule: str | None = None,
        *,
        undelivered: bool = False,
        limit: int = 0,
    ) -> list[Document]:
        """Alerts, the newest bar first."""
        query: Document = {"symbol": {"$in": list(symbols)}} if symbols else {}
        if rule:
            query["rule"] = rule
        if undelivered:
            query["due_at"] = {"$exists": True}
        with mongo_errors("list the alerts"):
            return list(self.alerts.find(query, sort=[("bar_start", -1), ("_id", 1)], limit=limit))


def _document(message: Message, channels: Sequence[str]) -> Document:
    fresh = {"attempts": 0, "last_error": None, "delivered_at": None, "next_at": message.created_at}
    document: Document = {
        "_id": message.id,
        "symbol": message.symbol,
        "rule": message.rule,
        "severity": message.severity,
        "bar_start": message.bar_start,
        "created_at": message.created_at,
        "message": message.model_dump(mode="json"),
        "channels": {name: dict(fresh) for name in channels},
    }
    if OUTBOX_CHANNEL in channels:
        document["channels"][OUTBOX_CHANNEL] = {**fresh, "delivered_at": message.created_at, "attempts": 1}
    if set(channels) - {OUTBOX_CHANNEL}:
        document["due_at"] = message.created_at
    return document


def _duplicates(error: BulkWriteError) -> list[int]:
    """The places of the writes that met an ``_id`` that is there. Raises the error where one failed otherwise."""
    problems = error.details["writeErrors"]
    if any(problem["code"] != DUPLICATE_KEY for problem in problems):
        raise error
    return [problem["index"] for problem in problems]


class AlertStates:
    """The collection ``alert_state``: one document a symbol, with a lock on its ``version``."""

    def __init__(self, database: Database[Document]) -> None:
        self._states = database["alert_state"]

    def load(self, symbols: Iterable[str]) -> dict[str, SymbolState]:
        with mongo_errors("read the alerts' state"):
            found = list(self._states.find({"_id": {"$in": list(symbols)}}))
        return {document["_id"]: _state(document) for document in found}

    def save(self, changes: Sequence[tuple[SymbolState, SymbolState]]) -> set[str]:
        """Writes what differs between each pair of states, before and after.

        Returns the symbols of which another tick has changed the state: nothing was written of those.
        """
        symbols = [after.symbol for before, after in changes if after != before]
        operations = [_update(before, after) for before, after in changes if after != before]
        if not operations:
            return set()
        with mongo_errors("keep the alerts' state"):
            try:
                self._states.bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                return {symbols[place] for place in _duplicates(error)}
        return set()


def _state(document: Document) -> SymbolState:
    return SymbolState(
        document["_id"],
        date.fromisoformat(document["horizon"]),
        document["history"],
        document["detail"],
        {date.fromisoformat(day): Seen.from_document(day, seen) for day, seen in document["sessions"].items()},
        document["fired"],
        document["version"],
    )


def _update(before: SymbolState, after: SymbolState) -> UpdateOne:
    """Takes effect on the version that was read only: on another one the upsert collides on ``_id``."""
    changed = {
        f"sessions.{day}": seen.to_document()
        for day, seen in after.sessions.items()
        if before.sessions.get(day) != seen
    }
    values: Document = {
        "horizon": after.horizon.isoformat(),
        "history": after.history,
        "detail": after.detail,
        "fired": after.fired,
        "version": before.version + 1,
        **(changed or ({} if before.version else {"sessions": {}})),
    }
    update: Document = {"$set": values}
    if gone := {f"sessions.{day}": "" for day in before.sessions if day not in after.sessions}:
        update["$unset"] = gone
    return UpdateOne({"_id": after.symbol, "version": before.version}, update, upsert=True)


@dataclass(frozen=True)
class Intent:
    """What a tick is about to store: the keys of its sessions, and since when (UTC)."""

    id: str
    keys: tuple[str, ...]
    since: datetime


class Intents:
    """The collection ``alert_pending``. An intent that stays is of a tick that died before it judged its bars."""

    def __init__(self, database: Database[Document]) -> None:
        self._pending = database["alert_pending"]

    def add(self, run_id: str, keys: Sequence[str]) -> Intent:
        intent = Intent(f"{run_id}|{secrets.token_hex(4)}", tuple(keys), utc_now())
        with mongo_errors("note what it is about to store"):
            self._pending.insert_one({"_id": intent.id, "keys": list(intent.keys), "since": intent.since})
        return intent

    def remove(self, intent: Intent) -> None:
        with mongo_errors("note what it has judged"):
            self._pending.delete_one({"_id": intent.id})

    def all(self) -> list[Intent]:
        with mongo_errors("find what was not judged"):
            found = list(self._pending.find())
        return [Intent(item["_id"], tuple(item["keys"]), item["since"]) for item in found]
