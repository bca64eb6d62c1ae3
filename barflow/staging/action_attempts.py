"""When Twelve Data was asked about the corporate actions of each symbol, so that no run asks too often.

The collection ``action_attempts`` has one document per symbol, and one per symbol and session whose open looks like a
split. All times are of the market's clock, in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from barflow.staging.connection import Document, mongo_errors

# When an unknown split is asked for the second and last time, after the first.
AGAIN_AFTER = timedelta(minutes=30)


@dataclass(frozen=True)
class Attempt:
    """The last complete answers about one symbol: ``asked_at`` for its actions, ``day_asked_at`` for its daily bar."""

    asked_at: datetime | None = None
    day_asked_at: datetime | None = None


class Attempts:
    """The collection ``action_attempts`` of one database."""

    def __init__(self, database: Database[Document]) -> None:
        self.collection = database["action_attempts"]

    def of(self, symbols: Sequence[str]) -> dict[str, Attempt]:
        """Return when each of the symbols was asked for."""
        with mongo_errors("read when corporate actions were asked for"):
            found = {item["_id"]: item for item in self.collection.find({"_id": {"$in": list(symbols)}})}
        asked = {symbol: found.get(symbol, {}) for symbol in symbols}
        return {symbol: Attempt(item.get("asked_at"), item.get("day_asked_at")) for symbol, item in asked.items()}

    def add_new(self, symbols: Iterable[str]) -> None:
        """Record symbols that have no bars yet, unless their actions were asked for before."""
        with mongo_errors("create its collections and indexes"):
            self.collection.create_index("is_new")
        self._update({symbol: {"$setOnInsert": {"is_new": True}} for symbol in symbols})

    def new(self) -> set[str]:
        """Return the symbols whose actions have not been answered since their first tick."""
        with mongo_errors("read which symbols are new"):
            return {item["_id"] for item in self.collection.find({"is_new": True}, {"_id": 1})}

    def asked(self, symbols: Iterable[str], at: datetime) -> None:
        """Record that the actions of these symbols were answered, with or without a contradiction."""
        self._update({symbol: {"$max": {"asked_at": at}, "$unset": {"is_new": ""}} for symbol in symbols})

    def day_asked(self, symbols: Iterable[str], at: datetime) -> None:
        """Record that the daily bars of these symbols were answered."""
        self._update({symbol: {"$max": {"day_asked_at": at}} for symbol in symbols})

    def claim(self, symbol: str, day: date, now: datetime) -> bool:
        """Return whether a run may ask for an unknown split of a session: once, and once more half an hour later.

        Of several runs at the same time, one may.
        """
        key = f"{symbol}|{day}"
        with mongo_errors("record that a split is asked for"):
            try:
                self.collection.insert_one({"_id": key, "first": now})
            except DuplicateKeyError:
                late = {"_id": key, "again": None, "first": {"$lte": now - AGAIN_AFTER}}
                return bool(self.collection.update_one(late, {"$set": {"again": now}}).modified_count)
        return True

    def claim_post(self, symbol: str, day: date) -> bool:
        """Return whether a run may post a contradiction of a symbol on this day: once. Of runs at once, one may."""
        with mongo_errors("record that a contradiction is posted"):
            posted = self.collection.update_one(
                {"_id": symbol, "posted_on": {"$ne": day.isoformat()}}, {"$set": {"posted_on": day.isoformat()}}
            )
        return bool(posted.modified_count)

    def _update(self, changes: Mapping[str, Document]) -> None:
        writes = [UpdateOne({"_id": symbol}, change, upsert=True) for symbol, change in changes.items()]
        if writes:
            with mongo_errors("record that corporate actions were asked for"):
                self.collection.bulk_write(writes, ordered=False)
