"""When the corporate actions of each symbol were asked for, so that no run asks more often than it should.

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
        """Return when each of the symbols was asked for. It takes one query by ``_id``."""
        with mongo_errors("read when corporate actions were asked for"):
            found = {item["_id"]: item for item in self.collection.find({"_id": {"$in": list(symbols)}})}
        asked = {symbol: found.get(symbol, {}) for symbol in symbols}
        return {symbol: Attempt(item.get("asked_at"), item.get("day_asked_at")) for symbol, item in asked.items()}

    def asked(self, symbols: Iterable[str], at: datetime) -> None:
        """Record that the actions of these symbols were answered, with or without a contradiction."""
        self._set({symbol: {"asked_at": at} for symbol in symbols})

    def day_asked(self, symbols: Iterable[str], at: datetime) -> None:
        """Record that the daily bars of these symbols were answered."""
        self._set({symbol: {"day_asked_at": at} for symbol in symbols})

    def claim(self, symbol: str, day: date, now: datetime) -> bool:
        """Return whether a run may ask for an unknown split of a session: once, and once more half an hour later.

        Of runs at the same time, one may.
        """
        key = f"{symbol}|{day}"
        with mongo_errors("record that a split is asked for"):
            try:
                self.collection.insert_one({"_id": key, "first": now})
            except DuplicateKeyError:
                late = {"_id": key, "again": None, "first": {"$lte": now - AGAIN_AFTER}}
                return bool(self.collection.update_one(late, {"$set": {"again": now}}).modified_count)
        return True

    def tell(self, symbol: str, day: date) -> bool:
        """Return whether a problem of a symbol is not told yet on this day, and record that it is."""
        with mongo_errors("record that a problem is told"):
            told = self.collection.update_one(
                {"_id": symbol, "told_on": {"$ne": day.isoformat()}}, {"$set": {"told_on": day.isoformat()}}
            )
        return bool(told.modified_count)

    def _set(self, fields: Mapping[str, Document]) -> None:
        writes = [UpdateOne({"_id": symbol}, {"$max": item}, upsert=True) for symbol, item in fields.items()]
        if writes:
            with mongo_errors("record that corporate actions were asked for"):
                self.collection.bulk_write(writes, ordered=False)
