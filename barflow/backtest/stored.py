"""The last backtests of a deployment or state, in MongoDB, for the page."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from pymongo.database import Database

from barflow.staging.connection import Document, mongo_errors

if TYPE_CHECKING:  # the page reads the collection without NumPy
    from barflow.backtest.summary import Summary

# How many backtests are kept.
KEPT = 20
# Of a larger file only the first rules, symbols and notes are kept: a document stays below half a megabyte.
MOST_RULES, MOST_NAMES = 200, 20
# What only the report shows.
LEFT_OUT = ("by_month", "by_symbol", "sensitivity")


class Backtests:
    """The collection ``backtests``: one document per backtest, without its alerts."""

    def __init__(self, database: Database[Document]) -> None:
        self.collection = database["backtests"]

    def add(self, summary: Summary) -> None:
        """Store a backtest, and drop the oldest beyond the newest 20."""
        with mongo_errors("store the backtest"):
            self.collection.insert_one({"_id": uuid.uuid4().hex, **_document(summary)})
            older = self.collection.find({}, {"_id": 1}, sort=[("created_at", -1)], skip=KEPT)
            self.collection.delete_many({"_id": {"$in": [item["_id"] for item in older]}})

    def newest(self) -> list[Document]:
        """Return the documents of the last backtests, newest first."""
        with mongo_errors("read the backtests"):
            return list(self.collection.find(sort=[("created_at", -1)], limit=KEPT))


def _document(summary: Summary) -> Document:
    found = summary.to_json()
    rules = list(found["rules"].items())[:MOST_RULES]
    for _, rule in rules:
        for name in LEFT_OUT:
            del rule[name]
        rule["longest_silence"] = rule["longest_silence"]["sessions"]
    return found | {
        "first": f"{summary.first}",
        "last": f"{summary.last}",
        "symbols": len(summary.symbols),
        "symbol_names": list(summary.symbols[:MOST_NAMES]),
        "notes": list(summary.notes[:MOST_NAMES]),
        "rules": [{"rule": name, **rule} for name, rule in rules],
    }
