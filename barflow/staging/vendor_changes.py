"""The vendor's daily bars that changed in MongoDB, for the hop process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import date, datetime

from pymongo.database import Database

from barflow.market.vendor_days import VendorDay
from barflow.staging.connection import Document, mongo_errors


def changed_days(
    database: Database[Document], symbols: Sequence[str] | None, stamped_after: datetime | None
) -> Iterator[tuple[VendorDay, datetime]]:
    """Yield the daily bars, of all symbols or some, that changed after a moment or ever, and when (UTC)."""
    query: Document = {"symbol": {"$in": list(symbols)}} if symbols else {}
    if stamped_after:
        query["updated_at"] = {"$gt": stamped_after}
    with mongo_errors("read the vendor's daily bars"):
        for document in database["vendor_days"].find(query, sort=[("_id", 1)]):
            values = {item.name: document[item.name] for item in fields(VendorDay)}
            values["session_date"] = date.fromisoformat(document["session_date"])
            yield VendorDay(**values), document["updated_at"]


def changed_symbols(
    database: Database[Document], symbols: Sequence[str] | None, stamped_after: datetime | None
) -> set[str]:
    """Return the symbols, of all or some, whose bars, actions or daily bars changed after a moment (UTC) or ever."""
    query: Document = {"updated_at": {"$gt": stamped_after}} if stamped_after else {}
    with mongo_errors("read what changed"):
        fields = {"bars": "symbol", "corporate_actions": "_id", "vendor_days": "symbol"}
        found = {name for collection, key in fields.items() for name in database[collection].distinct(key, query)}
    return found.intersection(symbols) if symbols else found
