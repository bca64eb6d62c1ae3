"""Staged sessions in MongoDB: one document per symbol and session, changed atomically.

This module also creates the collection, its validator and its indexes. A save reads the documents it touches, merges
in memory, and writes with an optimistic lock on ``version``. A session that another run changed in between is read and
merged again. A value that a bar loses goes to barflow.staging.bar_versions first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo import DeleteOne, InsertOne, UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, OperationFailure

from barflow.errors import BarflowError
from barflow.market.bars import ARRAYS, INTERVAL, OF_A_BAR, VALUES, SessionBars, document_key, mongo_validator
from barflow.market.sessions import BAR, utc_now
from barflow.staging.bar_versions import BarVersions
from barflow.staging.connection import DUPLICATE_KEY, Document, mongo_errors
from barflow.staging.merge import Merge, merge_session

# Sessions to store by ``_id``, each with the moment (UTC) at which its answer was requested.
Pending = dict[str, tuple[SessionBars, datetime]]
MAX_ATTEMPTS = 100
KEYS_PER_QUERY = 250
# How much one query counts. The embedded server collects an answer before it sends it, and lists the symbols only by
# reading every document.
SYMBOLS_PER_COUNT, DOCUMENTS_PER_COUNT = 50, 20_000
NAMESPACE_EXISTS = 48
COUNTED: Document = {
    "symbol": 1,
    "session_date": 1,
    "version": 1,
    "updated_at": 1,
    "bars": {"$size": "$ts"},
    "last": {"$arrayElemAt": ["$ts", -1]},
}
NAIVE: CodecOptions[Document] = CodecOptions()


@dataclass(frozen=True)
class StoredSession:
    """A session and the version at which it was stored."""

    bars: SessionBars
    version: int


@dataclass
class Saved:
    """What a save did with one symbol's bars, and the sessions that it changed."""

    new: int = 0
    revised: int = 0
    unchanged: int = 0
    changed: list[StoredSession] = field(default_factory=list)

    @property
    def sessions_changed(self) -> list[date]:
        """Return the days of the changed sessions."""
        return [item.bars.session_date for item in self.changed]


def known_from_of(document: Document) -> list[datetime]:
    """Return when each bar of a stored document became known (UTC), as the database was opened: aware or naive.

    Documents of earlier releases have no known_from. A bar without a revision then gets the time at which its document
    was first stored, and a revised bar that of the newest answer; in both cases the bar's close if that is later.
    """
    if known := document.get("known_from"):
        return list(known)
    first, newest = document["first_seen_at"], document["requested_at"]
    return [
        max(newest, ts + BAR) if revision else max(first, ts + BAR)
        for ts, revision in zip(document["ts"], document["revision"], strict=False)
    ]


def from_document(document: Document) -> SessionBars:
    """Return a stored document as columns. Its dates must be aware, in UTC.

    ``known_from`` is empty if the document does not hold it, or was read without it.
    """
    day = date.fromisoformat(document["session_date"])
    columns = {name: document[name] for name in OF_A_BAR}
    return SessionBars(document["symbol"], day, **columns, known_from=document.get("known_from", []))


class Staging:
    """The collection ``bars`` of one database."""

    def __init__(self, database: Database[Document]) -> None:
        self.database = database
        self.bars = database["bars"]
        # The driver takes 30 times as long to read a date with its time zone.
        self._naive = self.bars.with_options(NAIVE)
        self._raw = self.bars.with_options(DEFAULT_RAW_BSON_OPTIONS)
        self.versions = BarVersions(database)

    def ensure(self) -> None:
        """Create the collection, its validator and its indexes where they are missing."""
        with mongo_errors("create its collections and indexes"):
            self._ensure_validator()
            self.bars.create_index([("symbol", 1), ("session_date", 1)], unique=True)
            self.bars.create_index("updated_at")

    def _ensure_validator(self) -> None:
        """Create the collection with the current validator, or replace the validator of an existing collection."""
        found = next(iter(self.database.list_collections(filter={"name": "bars"})), None)
        if found is None:
            try:
                self.database.create_collection("bars", check_exists=False, validator=mongo_validator())
            except OperationFailure as error:
                if error.code != NAMESPACE_EXISTS:  # otherwise another tick created it first
                    raise
        elif found.get("options", {}).get("validator") != mongo_validator():
            self.database.command("collMod", "bars", validator=mongo_validator())

    def newest_sessions(self, symbols: Sequence[str], recent: Sequence[date]) -> dict[str, date]:
        """Return the newest stored session of each symbol that has one.

        ``recent`` are the days to look at first, newest first. Each takes one query for all the symbols that are still
        missing. A symbol that has none of these days takes one small query of its own.
        """
        newest: dict[str, date] = {}
        with mongo_errors("read the newest sessions"):
            for day in recent:
                keys = [document_key(symbol, day) for symbol in symbols if symbol not in newest]
                for document in self._by_key(keys, {"symbol": 1}):
                    newest[document["symbol"]] = day
            for symbol in set(symbols) - set(newest):
                found = self.bars.find_one({"symbol": symbol}, {"session_date": 1}, sort=[("session_date", -1)])
                if found:
                    newest[symbol] = date.fromisoformat(found["session_date"])
        return newest

    def save(
        self, sessions: Iterable[tuple[SessionBars, datetime]], run_id: str, *, known_from: datetime | None = None
    ) -> dict[str, Saved]:
        """Merge sessions into the collection. Return the number of new, revised and unchanged bars by symbol.

        Each session comes once, with the moment (UTC) at which its answer was requested. ``known_from`` (UTC) is given
        if its bars became known later than that. A document changes completely or not at all, and only when its bars
        changed. Raises UnavailableError, and BarflowError where other runs keep changing the same sessions. Documents
        already written stay, and saving the same bars again changes nothing.
        """
        # Oldest first: the next tick starts from the newest stored session. A save that is interrupted must not
        # leave an older one out.
        ordered = sorted(sessions, key=lambda item: item[0].session_date)
        pending = {bars.key: (bars, _as_stored(requested_at)) for bars, requested_at in ordered}
        saved = {bars.symbol: Saved() for bars, _ in pending.values()}
        with mongo_errors("store the bars"):
            for _ in range(MAX_ATTEMPTS):
                pending = self._save_once(pending, saved, run_id, known_from)
                if not pending:
                    return saved
        raise BarflowError(
            f"{', '.join(pending)}: not stored, because other runs kept changing the same sessions. "
            "What was stored before is unchanged. Run the same command again."
        )

    def _save_once(
        self, pending: Pending, saved: dict[str, Saved], run_id: str, known_from: datetime | None
    ) -> Pending:
        """Read, merge and write once. Return the sessions that another run changed between the read and the write."""
        stored = {document["_id"]: document for document in self._by_key(list(pending))}
        merges: list[tuple[str, Merge]] = []
        operations: list[InsertOne[Document] | UpdateOne] = []
        for key, (incoming, requested_at) in pending.items():
            document = stored.get(key)
            if document and _holds(document, incoming, requested_at):
                saved[incoming.symbol].unchanged += len(incoming)
                continue
            document = document and _aware(document)
            merge = merge_session(
                replace(from_document(document), known_from=known_from_of(document)) if document else None,
                incoming,
                requested_at,
                newest=document["requested_at"] if document else None,
                known_from=known_from and _as_stored(known_from),
                earlier=lambda key=key: self.versions.of([key]).get(key, ()),  # type: ignore[misc]
            )
            if merge.changed:
                merges.append((key, merge))
                operations.append(_write(merge.bars, document, run_id, requested_at))
            else:
                saved[incoming.symbol].unchanged += merge.unchanged
        done = len(merges)
        if operations:
            self.versions.add({key: merge.superseded for key, merge in merges})
            try:
                self.bars.bulk_write(operations, ordered=True)
            except BulkWriteError as error:
                first = error.details["writeErrors"][0]
                if first["code"] != DUPLICATE_KEY:
                    raise
                done = first["index"]
        for key, merge in merges[:done]:
            counts = saved[merge.bars.symbol]
            counts.new += merge.new
            counts.revised += merge.revised
            counts.unchanged += merge.unchanged
            version = stored[key]["version"] + 1 if key in stored else 1
            counts.changed.append(StoredSession(merge.bars, version))
        return {key: pending[key] for key, _ in merges[done:]}

    def sessions(self, keys: Sequence[str]) -> Iterator[StoredSession]:
        """Yield the stored sessions among these keys, in no particular order."""
        with mongo_errors("read the bars"):
            for document in self._by_key(keys):
                yield StoredSession(from_document(_aware(document)), document["version"])

    def _by_key(self, keys: Sequence[str], fields: Document | None = None) -> Iterator[Document]:
        """Yield the documents with these ``_id``, with naive dates in UTC.

        The cost does not depend on the length of the symbols' history.
        """
        for start in range(0, len(keys), KEYS_PER_QUERY):
            yield from self._naive.find({"_id": {"$in": keys[start : start + KEYS_PER_QUERY]}}, fields)

    def expire(self, documents: Iterable[Document]) -> int:
        """Delete the documents that still have the given ``_id`` and ``version``, with their superseded versions.

        Return how many documents were deleted.
        """
        expired = {item["_id"]: item["version"] for item in documents}
        operations = [DeleteOne({"_id": key, "version": version}) for key, version in expired.items()]
        if not operations:
            return 0
        keys = list(expired)
        with mongo_errors("delete expired bars"):
            deleted = self.bars.bulk_write(operations, ordered=False).deleted_count
            left = {document["_id"] for document in self._by_key(keys, {"_id": 1})}
        self.versions.expire(key for key in keys if key not in left)
        return deleted

    def between(self, symbol: str, first: str, last: str) -> Iterator[Document]:
        """Yield one symbol's documents of the sessions from ``first`` to ``last``, in no particular order.

        The query is for one symbol, since not every server limits a query for several symbols to these days.
        """
        with mongo_errors("read the bars"):
            yield from self.bars.find({"symbol": symbol, "session_date": {"$gte": first, "$lte": last}})

    def raw_between(self, symbol: str, first: str, last: str) -> Iterator[bytes]:
        """Yield the documents of `between` as BSON."""
        with mongo_errors("read the bars"):
            for document in self._raw.find({"symbol": symbol, "session_date": {"$gte": first, "$lte": last}}):
                yield bytes(document.raw)

    def counts(
        self,
        symbols: Sequence[str] | None = None,
        since: date | None = None,
        until: date | None = None,
        stamped_after: datetime | None = None,
    ) -> Iterator[Document]:
        """Yield by document symbol, session_date, version, updated_at, ``bars`` (a number) and ``last`` (newest open).

        The arguments limit this to some symbols, to sessions ``since`` a day and ``until`` a day (both included), and
        to documents whose ``updated_at`` is later than ``stamped_after``.
        """
        match: Document = {}
        days = {"$gte": since and since.isoformat(), "$lte": until and until.isoformat()}
        if limits := {operator: day for operator, day in days.items() if day}:
            match["session_date"] = limits
        with mongo_errors("count the bars"):
            if stamped_after:
                # Its index comes first: the cost follows what changed. Some servers take the index of the first field.
                chosen = {"symbol": {"$in": list(symbols)}} if symbols else {}
                queries: list[Document] = [{"updated_at": {"$gt": stamped_after}, **chosen, **match}]
            else:
                names = sorted(symbols) if symbols else []
                if not names and self.size() > DOCUMENTS_PER_COUNT:
                    names = self.symbols()
                groups = (names[at : at + SYMBOLS_PER_COUNT] for at in range(0, len(names), SYMBOLS_PER_COUNT))
                queries = [{"symbol": {"$in": group}, **match} for group in groups] or [match]
            for query in queries:
                yield from self.bars.find(query, COUNTED)

    def counts_of(self, sessions: Iterable[tuple[str, str]]) -> Iterator[Document]:
        """Yield the fields of ``counts`` of those (symbol, day) that are staged, in no particular order."""
        keys = [document_key(symbol, date.fromisoformat(day)) for symbol, day in sessions]
        with mongo_errors("count the bars"):
            for start in range(0, len(keys), KEYS_PER_QUERY):
                match = {"_id": {"$in": keys[start : start + KEYS_PER_QUERY]}}
                yield from self.bars.aggregate([{"$match": match}, {"$project": COUNTED}])

    def size(self) -> int:
        """Return about how many sessions are staged."""
        with mongo_errors("count the sessions"):
            return self.bars.estimated_document_count()

    def symbols(self) -> list[str]:
        """Return the symbols that have staged sessions, sorted."""
        with mongo_errors("list the symbols"):
            return sorted(self.bars.distinct("symbol"))

    def newest_before(self, symbols: Iterable[str], day: date) -> dict[str, str]:
        """Return by symbol its newest staged session before a day, as ISO text. A few small queries per symbol.

        Each looks back twice as far as the one before: not every server stops at the first match of a sorted query.
        """
        spans = [timedelta(days=30 * 2**doubled) for doubled in range(10)]  # the last one is 42 years
        newest: dict[str, str] = {}
        with mongo_errors("read the newest sessions"):
            for symbol in symbols:
                for first, last in pairwise([day, *(day - span for span in spans)]):
                    days = {"$gte": last.isoformat(), "$lt": first.isoformat()}
                    earlier = {"symbol": symbol, "session_date": days}
                    if found := self.bars.find_one(earlier, {"session_date": 1}, sort=[("session_date", -1)]):
                        newest[symbol] = found["session_date"]
                        break
        return newest


def _holds(document: Document, incoming: SessionBars, requested_at: datetime) -> bool:
    """Return whether an answer that is not late brings nothing new. The document has naive dates in UTC.

    This is what most answers do, so it spares them the rest.
    """
    asked = requested_at.replace(tzinfo=None)
    return (
        asked >= document["requested_at"]
        and all(document[name] == getattr(incoming, name) for name in VALUES[1:])
        and document["ts"] == [ts.replace(tzinfo=None) for ts in incoming.ts]
    )


def _aware(document: Document) -> Document:
    """Return a document that was read with naive dates, with dates in UTC."""

    def aware(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC)
        if isinstance(value, list) and value and isinstance(value[0], datetime):
            return [item.replace(tzinfo=UTC) for item in value]
        return value

    return {name: aware(value) for name, value in document.items()}


def _as_stored(moment: datetime) -> datetime:
    """Return a moment as MongoDB stores it, in whole milliseconds."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _write(
    bars: SessionBars, document: Document | None, run_id: str, requested_at: datetime
) -> InsertOne[Document] | UpdateOne:
    """Return the write that takes effect only on the version that was read, or only if there was no document.

    When another run was faster, the insert collides on ``_id``. So does the update: its filter finds nothing, and the
    upsert inserts. In both cases that operation reports a duplicate key, so each lost race is known by its index.
    """
    now = utc_now()
    version = document["version"] if document else 0
    changed: Document = {
        "symbol": bars.symbol,
        "interval": INTERVAL,
        "session_date": bars.session_date.isoformat(),
        "version": version + 1,
        "run_id": run_id,
        "first_seen_at": document["first_seen_at"] if document else now,
        "updated_at": now,
        "requested_at": max(requested_at, document["requested_at"]) if document else requested_at,
        **{name: getattr(bars, name) for name in ARRAYS},
    }
    # PyMongo encodes an int below 2^31 as a 32-bit BSON int. The validator requires a long for every volume.
    changed["volume"] = [Int64(value) for value in bars.volume]
    if document is None:
        return InsertOne({"_id": bars.key, **changed})
    return UpdateOne({"_id": bars.key, "version": version}, {"$set": changed}, upsert=True)
