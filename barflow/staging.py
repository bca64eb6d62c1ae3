"""Staging in MongoDB: one document per symbol and session, changed atomically, never twice for one change.

The collections, their validators and indexes are made here. A save reads the touched documents, merges in
memory and writes with an optimistic lock on ``version``; what lost the race is read and merged again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pymongo
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, CollectionInvalid, DuplicateKeyError, PyMongoError

from barflow.bars import ARRAYS, INTERVAL, SessionBars, mongo_validator
from barflow.errors import BadInputError, BarflowError, UnavailableError
from barflow.sessions import utc_now

if TYPE_CHECKING:
    from barflow.twelvedata import RawResponse

Document = dict[str, Any]
RAW_KEPT = timedelta(days=30)
# A document holds at most 16 MB; a larger body is kept compressed.
PLAIN_BODY_BYTES = 4_000_000
MAX_TRIES = 100
DUPLICATE_KEY = 11000
UTC_AWARE: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)


@contextmanager
def mongo_errors(what: str) -> Iterator[None]:
    """Turns a driver's error into one line that never shows the URI. DuplicateKeyError passes: it is an answer."""
    try:
        yield
    except DuplicateKeyError:
        raise
    except BulkWriteError as error:
        first = error.details.get("writeErrors", [{}])[0].get("errmsg", "unknown")
        raise BarflowError(f"MongoDB refused to {what}: {first}. What was stored before is unchanged.") from None
    except PyMongoError as error:
        reason = str(error).split(", Timeout:")[0].split(" (configured timeouts")[0][:200]
        raise UnavailableError(
            f"MongoDB could not {what}: {reason}. What was stored before is unchanged. "
            "Check BARFLOW_MONGODB_URI and that the server answers, then run the same command again."
        ) from None


def connect(uri: str, database: str = "barflow", tz_aware: bool = True) -> Database[Document]:
    """Opens the database; its dates come aware in UTC, or naive where speed counts.

    Raises BadInputError for a malformed URI, UnavailableError when nobody answers.
    """
    try:
        client: pymongo.MongoClient[Document] = pymongo.MongoClient(
            uri,
            appname="barflow",
            serverSelectionTimeoutMS=5_000,
            connectTimeoutMS=5_000,
            socketTimeoutMS=60_000,
            retryWrites=True,
        )
        opened = client.get_database(database, codec_options=UTC_AWARE if tz_aware else None)
    except (pymongo.errors.ConfigurationError, pymongo.errors.InvalidURI, ValueError):
        raise BadInputError(
            "BARFLOW_MONGODB_URI is not a MongoDB URI: it looks like mongodb://USER:PASSWORD@HOST:27017/"
        ) from None
    with mongo_errors("be reached"):
        client.admin.command("ping")
    return opened


@dataclass
class Saved:
    """What a save did to one symbol's bars."""

    new: int = 0
    revised: int = 0
    unchanged: int = 0
    sessions_changed: list[date] = field(default_factory=list)


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
            if "bars" not in self.database.list_collection_names():
                with suppress(CollectionInvalid):  # another tick was first
                    self.database.create_collection("bars", validator=mongo_validator())
            self.bars.create_index([("symbol", 1), ("session_date", 1)], unique=True)
            self.bars.create_index("updated_at")
            raw = self.database["raw_responses"]
            raw.create_index("requested_at", expireAfterSeconds=int(RAW_KEPT.total_seconds()))
            raw.create_index("run_id")

    def newest_sessions(self, symbols: Sequence[str], since: date) -> dict[str, date]:
        """The newest stored session of each symbol that has any. One query on the index for those with a session
        at or after ``since``, and one small query for each of the others."""
        newest: dict[str, date] = {}
        with mongo_errors("say what is stored"):
            recent = self.bars.find(
                {"symbol": {"$in": list(symbols)}, "session_date": {"$gte": since.isoformat()}},
                {"_id": 0, "symbol": 1, "session_date": 1},
            )
            for document in recent:
                day = date.fromisoformat(document["session_date"])
                newest[document["symbol"]] = max(newest.get(document["symbol"], day), day)
            for symbol in set(symbols) - set(newest):
                found = self.bars.find_one({"symbol": symbol}, {"session_date": 1}, sort=[("session_date", -1)])
                if found:
                    newest[symbol] = date.fromisoformat(found["session_date"])
        return newest

    def save(self, sessions: Iterable[SessionBars], run_id: str, requested_at: datetime) -> dict[str, Saved]:
        """Merges sessions of any symbols into the store; per symbol what became of the bars.

        Every document is changed whole or not at all, and only when its bars changed. Raises UnavailableError;
        documents already written stay, and saving the same bars again changes nothing.
        """
        # Oldest first: the next tick starts from the newest stored session, so a save that is cut off must not
        # leave an older one out.
        pending = {item.key: item for item in sorted(sessions, key=lambda item: item.session_date)}
        saved = {item.symbol: Saved() for item in pending.values()}
        with mongo_errors("store the bars"):
            for _ in range(MAX_TRIES):
                pending = self._try_save(pending, saved, run_id, requested_at)
                if not pending:
                    return saved
        raise BarflowError(
            f"{', '.join(pending)}: other runs kept changing the same sessions. Nothing was lost; run the tick again."
        )

    def _try_save(
        self, pending: dict[str, SessionBars], saved: dict[str, Saved], run_id: str, requested_at: datetime
    ) -> dict[str, SessionBars]:
        """One round. Returns the sessions that another run changed between the read and the write."""
        stored = {document["_id"]: document for document in self._documents(pending.values())}
        merges: list[tuple[str, Merge]] = []
        operations: list[UpdateOne] = []
        for key, incoming in pending.items():
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
        for _, merge in merges[:done]:
            tally = saved[merge.bars.symbol]
            tally.new += merge.new
            tally.revised += merge.revised
            tally.unchanged += merge.unchanged
            tally.sessions_changed.append(merge.bars.session_date)
        return {key: pending[key] for key, _ in merges[done:]}

    def _documents(self, sessions: Iterable[SessionBars]) -> Iterator[Document]:
        wanted = list(sessions)
        days = sorted({item.session_date.isoformat() for item in wanted})
        symbols = sorted({item.symbol for item in wanted})
        return iter(
            self.bars.find({"symbol": {"$in": symbols}, "session_date": {"$gte": days[0], "$lte": days[-1]}})
            if days
            else ()
        )

    def keep_raw(self, raw: RawResponse, run_id: str) -> None:
        """Keeps an answer as it was received; large ones compressed (``encoding`` says so)."""
        document: Document = {
            "run_id": run_id,
            "symbols": list(raw.symbols),
            "requested_at": raw.requested_at,
            "http_status": raw.http_status,
        }
        if len(raw.body) > PLAIN_BODY_BYTES:
            document |= {"body": zlib.compress(raw.body), "encoding": "zlib"}
        else:
            document |= {"body": raw.body.decode("utf-8", "replace")}
        with mongo_errors("keep the raw answer"):
            self.database["raw_responses"].insert_one(document)

    def month(self, symbols: Sequence[str], month: str, days: Sequence[str] | None = None) -> Iterator[Document]:
        """The documents of those symbols in an exchange-local month, all or of some days, in no set order."""
        wanted: Document = {"$in": list(days)} if days is not None else {"$gte": f"{month}-01", "$lte": f"{month}-31"}
        with mongo_errors("read the bars"):
            yield from self.bars.find({"symbol": {"$in": list(symbols)}, "session_date": wanted}, batch_size=500)

    def counts(
        self, symbols: Sequence[str] | None = None, since: date | None = None, stamped_after: datetime | None = None
    ) -> Iterator[Document]:
        """Per document its symbol, session_date, version, ``bars`` (how many) and ``last`` (the newest bar's open).

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
            "bars": {"$size": "$ts"},
            "last": {"$arrayElemAt": ["$ts", -1]},
        }
        with mongo_errors("count the bars"):
            yield from self.bars.aggregate([{"$match": match}, {"$project": shown}])


def _write(bars: SessionBars, document: Document | None, run_id: str, requested_at: datetime) -> UpdateOne:
    """The write that takes effect only on the version that was read.

    When another run was faster the filter finds nothing, the upsert collides on ``_id``, and that one operation
    reports a duplicate key: so each lost race is known by its index, and a first insert needs no other form.
    """
    now = utc_now()
    version = document["version"] if document else 0
    asked = max(requested_at, document["requested_at"]) if document else requested_at
    changed: Document = {
        "symbol": bars.symbol,
        "interval": INTERVAL,
        "session_date": bars.session_date.isoformat(),
        "version": version + 1,
        "run_id": run_id,
        "updated_at": now,
        "requested_at": asked,
        **{name: getattr(bars, name) for name in ARRAYS},
    }
    # An int below 2^31 travels as a 32-bit BSON int; the validator wants every volume to be a long.
    changed["volume"] = [Int64(value) for value in bars.volume]
    return UpdateOne(
        {"_id": bars.key, "version": version}, {"$set": changed, "$setOnInsert": {"first_seen_at": now}}, upsert=True
    )
