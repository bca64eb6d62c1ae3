"""The collections of alerts: the outbox, each symbol's state, and the sessions that wait for evaluation.

The order of writes makes one event one alert, wherever a tick dies: (1) add the sessions to the pending evaluations,
(2) store their bars, (3) record in the journal what the evaluation saw, (4) store the symbols' state with the alerts,
(5) add the alerts to the outbox, where an existing id stays as it is, (6) remove them from the state, (7) remove the
sessions from the pending evaluations. An evaluation takes effect with step 4 or not at all: a tick that died before it,
or lost a race, leaves no alert. After a later death, the next evaluation of the symbol does steps 5 and 6.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from barflow.alerts.endpoints import Endpoints
from barflow.alerts.history import Compared, EvaluatedSession, SymbolState
from barflow.alerts.message import Message
from barflow.alerts.mutes import Mutes
from barflow.market.sessions import utc_now
from barflow.staging.connection import DUPLICATE_KEY, Document, mongo_errors

EPOCH = datetime.fromtimestamp(0, UTC)
EXPIRES_AFTER = timedelta(days=90)
# The channel that is the outbox itself. Its readers follow the collection.
OUTBOX_CHANNEL = "sse"


class Outbox:
    """The collection ``alerts``. A document's ``_id`` is the alert's stable id.

    ``channels`` holds by channel ``delivered_at``, ``attempts``, ``last_error`` and ``next_at``, ``dropped_at`` if its
    endpoint wants no more alerts, and ``muted_at`` if the alert was muted. ``due_at`` is the time of the next attempt.
    It is absent once no channel waits for the alert.
    """

    def __init__(self, database: Database[Document]) -> None:
        self.alerts = database["alerts"]
        self.endpoints = Endpoints(database)
        self.mutes = Mutes(database)

    def ensure(self) -> None:
        """Create the indexes that are missing."""
        with mongo_errors("create its collections and indexes"):
            self.alerts.create_index("due_at")
            self.alerts.create_index([("symbol", 1), ("bar_start", -1)])
            self.alerts.create_index("created_at", expireAfterSeconds=int(EXPIRES_AFTER.total_seconds()))
        self.mutes.ensure()

    def add(self, messages: Iterable[tuple[Message, Sequence[str]]]) -> int:
        """Add messages, each with the names of its channels. Return how many were new; existing ids do not change."""
        return self.insert(outbox_document(message, channels) for message, channels in messages)

    def insert(self, alerts: Iterable[Document]) -> int:
        """Add alerts as documents. Return how many were new; existing ids do not change."""
        documents = [*{item["_id"]: item for item in alerts}.values()]
        if not documents:
            return 0
        with mongo_errors("store the alerts"):
            try:
                self.alerts.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                return len(documents) - len(_duplicates(error))
        return len(documents)

    def undelivered_age(self) -> float:
        """Return the age in seconds of the oldest alert that a channel has not accepted, or 0 if there is none."""
        undelivered = {"due_at": {"$gt": EPOCH}}  # unlike $exists, this comparison uses the index
        with mongo_errors("find undelivered alerts"):
            oldest = self.alerts.find_one(undelivered, {"created_at": 1}, sort=[("created_at", 1)])
        return max(0.0, (utc_now() - oldest["created_at"]).total_seconds()) if oldest else 0.0

    def bars_fired(self, symbols: Sequence[str]) -> dict[str, dict[str, list[datetime]]]:
        """Return by symbol and rule the bars (opens, UTC) of all alerts."""
        fields = {"symbol": 1, "rule": 1, "bar_start": 1}
        bars: dict[str, dict[str, list[datetime]]] = {}
        with mongo_errors("read which alerts fired"):
            for item in self.alerts.find({"symbol": {"$in": list(symbols)}}, fields):
                bars.setdefault(item["symbol"], {}).setdefault(item["rule"], []).append(item["bar_start"])
        return bars

    def find(
        self,
        symbols: Sequence[str] | None = None,
        rule: str | None = None,
        *,
        undelivered: bool = False,
        limit: int = 0,
    ) -> list[Document]:
        """Return alerts, newest bar first."""
        query: Document = {"symbol": {"$in": list(symbols)}} if symbols else {}
        if rule:
            query["rule"] = rule
        if undelivered:
            query["due_at"] = {"$exists": True}
        with mongo_errors("list the alerts"):
            return list(self.alerts.find(query, sort=[("bar_start", -1), ("_id", 1)], limit=limit))


def outbox_document(message: Message, channels: Sequence[str]) -> Document:
    """Return the document of a new alert, for the channels with these names."""
    initial = {"attempts": 0, "last_error": None, "delivered_at": None, "next_at": message.created_at}
    document: Document = {
        "_id": message.id,
        "symbol": message.symbol,
        "rule": message.rule,
        "severity": message.severity,
        "bar_start": message.bar_start,
        "created_at": message.created_at,
        "message": message.model_dump(mode="json"),
        "channels": {name: dict(initial) for name in channels},
    }
    if OUTBOX_CHANNEL in channels:
        document["channels"][OUTBOX_CHANNEL] = {**initial, "delivered_at": message.created_at, "attempts": 1}
    if set(channels) - {OUTBOX_CHANNEL}:
        document["due_at"] = message.created_at
    return document


def _duplicates(error: BulkWriteError) -> list[int]:
    """Return the places of the writes whose ``_id`` exists already. Raise the error where a write failed otherwise."""
    problems = error.details["writeErrors"]
    if any(problem["code"] != DUPLICATE_KEY for problem in problems):
        raise error
    return [problem["index"] for problem in problems]


class AlertStates:
    """The collection ``alert_state``: one document per symbol, with an optimistic lock on its ``version``."""

    def __init__(self, database: Database[Document]) -> None:
        self._states = database["alert_state"]

    def load(self, symbols: Iterable[str]) -> dict[str, SymbolState]:
        """Return the stored states of these symbols."""
        with mongo_errors("read the state of the alerts"):
            found = list(self._states.find({"_id": {"$in": list(symbols)}}))
        return {document["_id"]: _state(document) for document in found}

    def save(self, changes: Sequence[tuple[SymbolState, SymbolState]]) -> set[str]:
        """Write the differences between each pair of states, before and after.

        Return the symbols whose state another tick has changed. Nothing was written for those.
        """
        symbols = [after.symbol for before, after in changes if after != before]
        operations = [_update(before, after) for before, after in changes if after != before]
        if not operations:
            return set()
        with mongo_errors("store the state of the alerts"):
            try:
                self._states.bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                return {symbols[place] for place in _duplicates(error)}
        return set()

    def remove_outgoing(self, states: Iterable[SymbolState]) -> None:
        """Remove the alerts of these states, which are in the outbox, unless the state was written again since."""
        operations = [
            UpdateOne({"_id": state.symbol, "version": state.version + 1}, {"$unset": {"outgoing": ""}})
            for state in states
        ]
        if operations:
            with mongo_errors("record that the alerts are in the outbox"):
                self._states.bulk_write(operations, ordered=False)


def _state(document: Document) -> SymbolState:
    return SymbolState(
        document["_id"],
        date.fromisoformat(document["horizon"]),
        document["history"],
        document["detail"],
        {
            date.fromisoformat(day): EvaluatedSession.from_document(day, item)
            for day, item in document["sessions"].items()
        },
        document["fired"],
        {date.fromisoformat(day): ratio for day, ratio in document.get("splits", {}).items()},
        {rule: date.fromisoformat(day) for rule, day in document.get("levels", {}).items()},
        document["version"],
        document.get("prices", 0),
        {item["symbol"]: _compared(item) for item in document.get("compared", ())},
        document.get("evaluation"),
        tuple(document.get("outgoing", ())),
    )


def _compared(item: Document) -> Compared:
    by_day = ({date.fromisoformat(day): value for day, value in item[name].items()} for name in ("splits", "bars"))
    return Compared(date.fromisoformat(item["since"]), *by_day)


def _update(before: SymbolState, after: SymbolState) -> UpdateOne:
    """Return the write that takes effect only on the version that was read. Else its upsert collides on ``_id``."""
    changed = {
        f"sessions.{day}": item.to_document()
        for day, item in after.sessions.items()
        if before.sessions.get(day) != item
    }
    values: Document = {
        "horizon": after.horizon.isoformat(),
        "history": after.history,
        "detail": after.detail,
        "prices": after.prices,
        "fired": after.fired,
        "splits": {day.isoformat(): ratio for day, ratio in after.splits.items()},
        "levels": {rule: day.isoformat() for rule, day in after.levels.items()},
        "compared": [
            {
                "symbol": name,  # a value and no field name, since it may have a dot
                "since": item.since.isoformat(),
                "splits": {day.isoformat(): ratio for day, ratio in item.splits.items()},
                "bars": {day.isoformat(): bars for day, bars in item.bars.items()},
            }
            for name, item in after.compared.items()
        ],
        "version": before.version + 1,
        "evaluation": after.evaluation,
        **({"outgoing": list(after.outgoing)} if after.outgoing else {}),
        **(changed or ({} if before.version else {"sessions": {}})),
    }
    update: Document = {"$set": values}
    removed = {f"sessions.{day}": "" for day in before.sessions if day not in after.sessions}
    if before.outgoing and not after.outgoing:
        removed["outgoing"] = ""
    if removed:
        update["$unset"] = removed
    return UpdateOne({"_id": after.symbol, "version": before.version}, update, upsert=True)


@dataclass(frozen=True)
class PendingEvaluation:
    """The keys of sessions that a run is about to store, and the time (UTC) at which it recorded them."""

    id: str
    keys: tuple[str, ...]
    since: datetime


class PendingEvaluations:
    """The collection ``alert_pending``: sessions that a run stores and that are not evaluated for alerts yet.

    A document that stays belongs to a run that died before the evaluation, or to a replay of the quarantine. The next
    tick evaluates its sessions.
    """

    def __init__(self, database: Database[Document]) -> None:
        self._pending = database["alert_pending"]

    def add(self, run_id: str, keys: Sequence[str]) -> PendingEvaluation:
        """Record the keys of the sessions that a run is about to store."""
        added = PendingEvaluation(f"{run_id}|{secrets.token_hex(4)}", tuple(keys), utc_now())
        with mongo_errors("record the sessions to evaluate"):
            self._pending.insert_one({"_id": added.id, "keys": list(keys), "since": added.since})
        return added

    def remove(self, evaluated: PendingEvaluation) -> None:
        """Remove an entry whose sessions are evaluated."""
        with mongo_errors("record which sessions were evaluated"):
            self._pending.delete_one({"_id": evaluated.id})

    def all(self) -> list[PendingEvaluation]:
        """Return every entry, those of runs that are active included."""
        with mongo_errors("read the sessions to evaluate"):
            found = list(self._pending.find())
        return [PendingEvaluation(item["_id"], tuple(item["keys"]), item["since"]) for item in found]
