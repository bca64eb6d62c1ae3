"""Staging in MongoDB: one document per symbol and session, changed atomically, never twice for one change.

The collections, their validators and indexes are made here. A save reads the touched documents, merges in
memory and writes with an optimistic lock on ``version``; what lost the race is read and merged again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from bson.int64 import Int64
from pymongo import DeleteOne, InsertOne, UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, OperationFailure

from barflow.errors import BarflowError
from barflow.market.bars import ARRAYS, INTERVAL, SessionBars, document_key, mongo_validator
from barflow.market.sessions import utc_now
from barflow.staging.connection import DUPLICATE_KEY, Document, mongo_errors

if TYPE_CHECKING:
    from barflow.twelvedata.client import RawResponse

# Sessions on their way into the store by ``_id``, each with the moment at which it was asked for.
Pending = dict[str, tuple[SessionBars, datetime]]
RAW_KEPT = timedelta(days=30)
# A document holds at most 16 MB; a larger body is kept compressed, in parts if need be.
PLAIN_BODY_BYTES, PART_BYTES = 4_000_000, 12_000_000
MAX_TRIES = 100
KEYS_PER_QUERY = 250
NAMESPACE_EXISTS = 48


@dataclass(frozen=True)
class StoredSession:
    """A session as it stands in the store at a version."""

    bars: SessionBars
    version: int


@dataclass
class Saved:
    """What a save did to one symbol's bars, and the sessions it changed."""

    new: int = 0
    revised: int = 0
    unchanged: int = 0
    changed: list[StoredSession] = field(default_factory=list)

    @property
    def sessions_changed(self) -> list[date]:
        return [item.bars.session_date for item in self.changed]


@dataclass(frozen=True)
class Merge:
    bars: SessionBars
    new: int
    revised: int
    unchanged: int

    @property
    def changed(self) -> bool:
        return bool(self.new or self.revised)


def merge_session(stored: SessionBars | None, incoming: SessionBars, outdated: bool = False) -> Merge:
    """Lays incoming bars over the stored ones. Pure.

    A bar with other values is a revision and counts one up. ``outdated`` says that the answer was asked for
    before the one that is stored: then it may only fill gaps, so that a slow tick cannot undo a correction.
    """
    if stored is None:
        return Merge(incoming, len(incoming), 0, 0)
    values = [getattr(incoming, name) for name in ARRAYS[:-1]]
    if all(
        mine == theirs for mine, theirs in zip(values, (getattr(stored, name) for name in ARRAYS[:-1]), strict=True)
    ):
        return Merge(stored, 0, 0, len(incoming))
    rows = dict(zip(stored.ts, zip(*(getattr(stored, name) for name in ARRAYS), strict=True), strict=True))
    new = revised = unchanged = 0
    for row in zip(*values, strict=True):
        old = rows.get(row[0])
        if old is None:
            rows[row[0]] = (*row, 0)
            new += 1
        elif old[:-1] == row or outdated:
            unchanged += 1
        else:
            rows[row[0]] = (*row, old[-1] + 1)
            revised += 1
    columns = map(list, zip(*(rows[ts] for ts in sorted(rows)), strict=True))
    merged = SessionBars(stored.symbol, stored.session_date, *columns)
    return Merge(merged, new, revised, unchanged)


def from_document(document: Document) -> SessionBars:
    """A stored document as columns; its dates are aware, in UTC."""
    day = date.fromisoformat(document["session_date"])
    return SessionBars(document["symbol"], day, *(document[name] for name in ARRAYS))


class Staging:
    """The collections ``bars`` and ``raw_responses`` of one database."""

    def __init__(self, database: Database[Document]) -> None:
        self.database = database
        self.bars = database["bars"]

    def ensure(self) -> None:
        """Creates what is missing: collections, validator, indexes. Cheap when all is there."""
        with mongo_errors("prepare its collections"):
            self._ensure_validator()
            self.bars.create_index([("symbol", 1), ("session_date", 1)], unique=True)
            self.bars.create_index("updated_at")
            raw = self.database["raw_responses"]
            raw.create_index("requested_at", expireAfterSeconds=int(RAW_KEPT.total_seconds()))
            raw.create_index("run_id")

    def _ensure_validator(self) -> None:
        """Makes the collection with today's validator, or gives it that one when it was made with another."""
        found = next(iter(self.database.list_collections(filter={"name": "bars"})), None)
        if found is None:
            try:
                self.database.create_collection("bars", check_exists=False, validator=mongo_validator())
            except OperationFailure as error:
                if error.code != NAMESPACE_EXISTS:  # another tick was first
                    raise
        elif found.get("options", {}).get("validator") != mongo_validator():
            self.database.command("collMod", "bars", validator=mongo_validator())

    def newest_sessions(self, symbols: Sequence[str], recent: Sequence[date]) -> dict[str, date]:
        """The newest stored session of each symbol that has any.

        ``recent`` are the days to look at first, newest first: one query each for all the symbols still in
        question, then a small query for each that has none of them.
        """
        newest: dict[str, date] = {}
        with mongo_errors("say what is stored"):
            for day in recent:
                keys = [document_key(symbol, day) for symbol in symbols if symbol not in newest]
                for document in self._by_key(keys, {"symbol": 1}):
                    newest[document["symbol"]] = day
            for symbol in set(symbols) - set(newest):
                found = self.bars.find_one({"symbol": symbol}, {"session_date": 1}, sort=[("session_date", -1)])
                if found:
                    newest[symbol] = date.fromisoformat(found["session_date"])
        return newest

    def save(self, sessions: Iterable[tuple[SessionBars, datetime]], run_id: str) -> dict[str, Saved]:
        """Merges sessions of any symbols into the store; per symbol what became of the bars.

        Each session comes with the moment (UTC) at which its answer was asked for, and only once. Every document is
        changed whole or not at all, and only when its bars changed. Raises UnavailableError; documents already
        written stay, and saving the same bars again changes nothing.
        """
        # Oldest first: the next tick starts from the newest stored session, so a save that is cut off must not
        # leave an older one out.
        pending = {item[0].key: item for item in sorted(sessions, key=lambda item: item[0].session_date)}
        saved = {bars.symbol: Saved() for bars, _ in pending.values()}
        with mongo_errors("store the bars"):
            for _ in range(MAX_TRIES):
                pending = self._try_save(pending, saved, run_id)
                if not pending:
                    return saved
        raise BarflowError(
            f"{', '.join(pending)}: other runs kept changing the same sessions. Nothing was lost; run the tick again."
        )

    def _try_save(self, pending: Pending, saved: dict[str, Saved], run_id: str) -> Pending:
        """One round. Returns the sessions that another run changed between the read and the write."""
        stored = {document["_id"]: document for document in self._by_key(list(pending))}
        merges: list[tuple[str, Merge]] = []
        operations: list[InsertOne[Document] | UpdateOne] = []
        for key, (incoming, requested_at) in pending.items():
            document = stored.get(key)
            outdated = document is not None and requested_at < document["requested_at"]
            merge = merge_session(from_document(document) if document else None, incoming, outdated)
            if merge.changed:
                merges.append((key, merge))
                operations.append(_write(merge.bars, document, run_id, requested_at))
            else:
                saved[incoming.symbol].unchanged += merge.unchanged
        done = len(merges)
        if operations:
            try:
                self.bars.bulk_write(operations, ordered=True)
            except BulkWriteError as error:
                first = error.details["writeErrors"][0]
                if first["code"] != DUPLICATE_KEY:
                    raise
                done = first["index"]
        for key, merge in merges[:done]:
            tally = saved[merge.bars.symbol]
            tally.new += merge.new
            tally.revised += merge.revised
            tally.unchanged += merge.unchanged
            version = stored[key]["version"] + 1 if key in stored else 1
            tally.changed.append(StoredSession(merge.bars, version))
        return {key: pending[key] for key, _ in merges[done:]}

    def sessions(self, keys: Sequence[str]) -> Iterator[StoredSession]:
        """The stored sessions among these keys, in no set order."""
        with mongo_errors("read the bars"):
            for document in self._by_key(keys):
                yield StoredSession(from_document(document), document["version"])

    def _by_key(self, keys: Sequence[str], shown: Document | None = None) -> Iterator[Document]:
        """Documents by ``_id``: what is read is what is asked for, however long the symbols' history is."""
        for start in range(0, len(keys), KEYS_PER_QUERY):
            yield from self.bars.find({"_id": {"$in": keys[start : start + KEYS_PER_QUERY]}}, shown)

    def expire(self, documents: Iterable[Document]) -> int:
        """Deletes these documents (``_id`` and ``version`` are read), unless they changed since. Returns how many."""
        operations = [DeleteOne({"_id": item["_id"], "version": item["version"]}) for item in documents]
        if not operations:
            return 0
        with mongo_errors("delete expired bars"):
            return self.bars.bulk_write(operations, ordered=False).deleted_count

    def keep_raw(self, raw: RawResponse, run_id: str) -> None:
        """Keeps an answer as it was received: as text, or a large one compressed, in ``parts`` documents."""
        about: Document = {
            "run_id": run_id,
            "symbols": list(raw.symbols),
            "requested_at": raw.requested_at,
            "http_status": raw.http_status,
        }
        if len(raw.body) <= PLAIN_BODY_BYTES:
            documents = [{**about, "body": raw.body.decode("utf-8", "replace")}]
        else:
            packed = zlib.compress(raw.body, level=1)
            cuts = range(0, len(packed), PART_BYTES)
            documents = [
                {**about, "body": packed[cut : cut + PART_BYTES], "encoding": "zlib", "part": part, "parts": len(cuts)}
                for part, cut in enumerate(cuts, start=1)
            ]
        with mongo_errors("keep the raw answer"):
            self.database["raw_responses"].insert_many(documents)

    def between(self, symbol: str, first: str, last: str) -> Iterator[Document]:
        """One symbol's documents of the sessions from ``first`` to ``last``, in no set order.

        A query for one symbol: for several, not every server confines itself to the days.
        """
        with mongo_errors("read the bars"):
            yield from self.bars.find({"symbol": symbol, "session_date": {"$gte": first, "$lte": last}})

    def counts(
        self, symbols: Sequence[str] | None = None, since: date | None = None, stamped_after: datetime | None = None
    ) -> Iterator[Document]:
        """Per document symbol, session_date, version, updated_at, ``bars`` (how many) and ``last`` (newest bar's open).

        All documents, or those of some symbols, of sessions ``since`` a day, or stamped after a moment.
        """
        match: Document = {"symbol": {"$in": list(symbols)}} if symbols else {}
        if since:
            match["session_date"] = {"$gte": since.isoformat()}
        if stamped_after:
            match["updated_at"] = {"$gt": stamped_after}
        shown = {
            "symbol": 1,
            "session_date": 1,
            "version": 1,
            "updated_at": 1,
            "bars": {"$size": "$ts"},
            "last": {"$arrayElemAt": ["$ts", -1]},
        }
        with mongo_errors("count the bars"):
            yield from self.bars.aggregate([{"$match": match}, {"$project": shown}])


def _write(
    bars: SessionBars, document: Document | None, run_id: str, requested_at: datetime
) -> InsertOne[Document] | UpdateOne:
    """The write that takes effect only on the version that was read, or on none when there was none.

    When another run was faster the insert collides on ``_id``; so does the update, whose filter then finds nothing
    and upserts. Either way that one operation reports a duplicate key: each lost race is known by its index.
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
    # An int below 2^31 travels as a 32-bit BSON int; the validator wants every volume to be a long.
    changed["volume"] = [Int64(value) for value in bars.volume]
    if document is None:
        return InsertOne({"_id": bars.key, **changed})
    return UpdateOne({"_id": bars.key, "version": version}, {"$set": changed}, upsert=True)
