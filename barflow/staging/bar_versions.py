"""Superseded versions of bars in MongoDB: one document per version.

A version is written here before the session document drops it. A run that dies in between leaves a repetition of the
current version, which ``barflow.market.versions.history`` leaves out. So no version is lost, on a server with or
without transactions. A version is known until the next one, so no document changes once it is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.database import Database

from barflow.market.bars import VALUES, document_key
from barflow.market.sessions import utc_now
from barflow.market.versions import BarVersion
from barflow.staging.connection import Document, mongo_errors

KEYS_PER_QUERY = 250


class BarVersions:
    """The collection ``bar_versions`` of one database."""

    def __init__(self, database: Database[Document]) -> None:
        self.collection = database["bar_versions"]
        self._has_index = False

    def add(self, versions: Mapping[str, Iterable[BarVersion]]) -> None:
        """Store versions by the key of their session (``AAPL|5min|2025-07-02``). A stored one stays as it is."""
        operations = [_insert(key, item) for key, found in versions.items() for item in found]
        if operations:
            with mongo_errors("store the earlier versions of the bars"):
                if not self._has_index:  # not in each tick: almost none has a version to store
                    self.collection.create_index([("symbol", 1), ("session_date", 1)])
                    self._has_index = True
                self.collection.bulk_write(operations, ordered=False)

    def of(self, keys: Sequence[str]) -> dict[str, list[BarVersion]]:
        """Return the stored versions of the sessions with these keys, in no particular order.

        Times are aware or naive UTC, as the database was opened. Sessions without versions are left out.
        """
        found: dict[str, list[BarVersion]] = defaultdict(list)
        with mongo_errors("read the earlier versions of the bars"):
            for symbol, days in _by_symbol(keys).items():
                for part in _parts(days):
                    for item in self.collection.find({"symbol": symbol, "session_date": {"$in": part}}):
                        values = (item[name] for name in VALUES)
                        version = BarVersion.of([*values], item["known_from"])
                        found[document_key(symbol, item["session_date"])].append(version)
        return dict(found)

    def expire(self, keys: Iterable[str]) -> None:
        """Delete the versions of the sessions with these keys."""
        with mongo_errors("delete expired versions of bars"):
            for symbol, days in _by_symbol(keys).items():
                for part in _parts(days):
                    self.collection.delete_many({"symbol": symbol, "session_date": {"$in": part}})


def _by_symbol(keys: Iterable[str]) -> dict[str, list[str]]:
    """Return the days of the sessions with these keys, by symbol."""
    days: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        symbol, _, day = key.rsplit("|", 2)
        days[symbol].append(day)
    return days


def _parts(days: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(days), KEYS_PER_QUERY):
        yield days[start : start + KEYS_PER_QUERY]


def _insert(key: str, version: BarVersion) -> UpdateOne:
    symbol, _, day = key.rsplit("|", 2)
    known_from = version.known_from.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    document: Document = {
        "symbol": symbol,
        "session_date": day,
        **{name: getattr(version, name) for name in VALUES},
        "volume": Int64(version.volume),
        "known_from": version.known_from,
        "stored_at": utc_now(),
    }
    identity = f"{key}|{version.ts:%Y-%m-%dT%H:%M:%SZ}|{known_from}"
    return UpdateOne({"_id": identity}, {"$setOnInsert": document}, upsert=True)
