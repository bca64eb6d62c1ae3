"""The vendor's daily bars in MongoDB: one document per symbol and session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date

from bson.int64 import Int64
from pymongo import ReplaceOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from barflow.market.sessions import utc_now
from barflow.market.vendor_days import VendorDay
from barflow.staging.connection import DUPLICATE_KEY, Document, mongo_errors

VALUES = ("open", "high", "low", "close", "volume")
# How many of the newest sessions of an answer may be stored.
NEWEST = 30


def day_key(symbol: str, day: date) -> str:
    """Return the ``_id`` of a daily bar, such as ``AAPL|2025-07-02``."""
    return f"{symbol}|{day}"


class VendorDays:
    """The collection ``vendor_days`` of one database."""

    def __init__(self, database: Database[Document]) -> None:
        self.collection = database["vendor_days"]

    def ensure(self) -> None:
        """Create the index if it is missing. A process run finds with it what changed."""
        with mongo_errors("create its collections and indexes"):
            self.collection.create_index("updated_at")

    def stored(self, symbols: Sequence[str], day: date) -> set[str]:
        """Return which of the symbols have the daily bar of a session."""
        keys = [day_key(symbol, day) for symbol in symbols]
        with mongo_errors("read the vendor's daily bars"):
            return {item["symbol"] for item in self.collection.find({"_id": {"$in": keys}}, {"symbol": 1})}

    def store(self, days: Mapping[date, VendorDay], newest: date) -> int:
        """Store one symbol's daily bar of the session ``newest``, and changed ones of sessions that are stored already.

        An answer that is older than the stored one changes nothing. Return how many bars were written.
        """
        recent = sorted(day for day in days if day <= newest)[-NEWEST:]
        kept = {day_key(days[day].symbol, day): days[day] for day in recent}
        with mongo_errors("store the vendor's daily bars"):
            found = {item["_id"]: item for item in self.collection.find({"_id": {"$in": list(kept)}})}
            writes = [
                _write(key, item, found.get(key))
                for key, item in kept.items()
                if (key in found or item.session_date == newest) and _changes(found.get(key), item)
            ]
            if not writes:
                return 0
            try:
                self.collection.bulk_write(writes, ordered=False)
            except BulkWriteError as error:  # another run stored a newer answer, or the same one
                if any(problem["code"] != DUPLICATE_KEY for problem in error.details["writeErrors"]):
                    raise
        return len(writes)


def _changes(document: Document | None, item: VendorDay) -> bool:
    return document is None or (
        document["requested_at"] <= item.requested_at and any(document[name] != getattr(item, name) for name in VALUES)
    )


def _write(key: str, item: VendorDay, document: Document | None) -> ReplaceOne[Document]:
    """Return the write that takes effect only on the answer that was read, or only if there was none."""
    fields = {
        **asdict(item),
        "session_date": item.session_date.isoformat(),
        "volume": Int64(item.volume),
        "updated_at": utc_now(),
    }
    same = {"_id": key, "requested_at": document["requested_at"] if document else None}
    return ReplaceOne(same, {"_id": key, **fields}, upsert=True)
