"""Bring session documents of earlier releases up to date: they do not hold when each bar became known."""

from __future__ import annotations

from collections.abc import Iterable

from pymongo import UpdateOne
from pymongo.database import Database

from barflow.market.sessions import utc_now
from barflow.staging.connection import Document, mongo_errors
from barflow.staging.sessions import Staging, known_from_of

AT_ONCE = 500
WITHOUT: Document = {"known_from": {"$exists": False}}


def count_without(database: Database[Document]) -> int:
    """Return the number of session documents that do not hold when their bars became known."""
    with mongo_errors("count the sessions without known_from"):
        return database["bars"].count_documents(WITHOUT)


def add_known_from(database: Database[Document]) -> int:
    """Write the array to the documents without it, as ``known_from_of`` returns it. Return how many documents changed.

    A document that a tick changes in between has the array then. Each gets a new version, so that the next run of
    process publishes it. A run that was stopped continues.
    """
    staging, changed = Staging(database), 0
    staging.ensure()
    with mongo_errors("write known_from"):
        fields = {"version": 1, "first_seen_at": 1, "requested_at": 1, "ts": 1, "revision": 1}
        for part in _batches(staging.bars.find(WITHOUT, fields)):
            updates = [
                UpdateOne(
                    {"_id": item["_id"], "version": item["version"]},
                    {
                        "$set": {
                            "known_from": known_from_of(item),
                            "version": item["version"] + 1,
                            "updated_at": utc_now(),
                        }
                    },
                )
                for item in part
            ]
            changed += staging.bars.bulk_write(updates, ordered=False).modified_count
    return changed


def _batches(documents: Iterable[Document]) -> Iterable[list[Document]]:
    waiting: list[Document] = []
    for item in documents:
        waiting.append(item)
        if len(waiting) == AT_ONCE:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
