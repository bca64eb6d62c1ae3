"""The quarantine: every rejected bar with its reason codes and payload, and its replay after a fix (guarantee G5)."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import bson
import orjson
from bson.errors import BSONError
from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from barflow.market.answers import ANSWER_REASONS
from barflow.market.bars import Bar, SessionBars
from barflow.market.sessions import utc_now
from barflow.market.validation import CONFLICTING_DUPLICATE, Rejected, check_row
from barflow.staging.connection import DUPLICATE_KEY, Document, mongo_errors
from barflow.staging.sessions import Staging

# A larger row is cut: MongoDB takes no document above 16 MB. A bar as received has about 200 bytes.
MAX_PAYLOAD_BYTES = 64 * 1024
# MongoDB takes 100 levels of documents and lists in one.
MAX_NESTED = 50
TOO_DEEP = "nested too deeply to be stored"
JSON, CUT = "json", "cut"  # how a payload is stored that is not stored as it is
# Reasons that depend on the whole answer. Checking the row alone again cannot clear them.
REASONS_OF_ANSWERS = {CONFLICTING_DUPLICATE, *ANSWER_REASONS}


@dataclass
class Replayed:
    """What a replay did: bars stored as new or revised, bars stored already, and bars still rejected, by reason."""

    stored: int = 0
    unchanged: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Quarantine:
    """The collection ``rejected_bars``. The same rejection in a later tick updates the document of the first."""

    def __init__(self, database: Database[Document]) -> None:
        self._rejected = database["rejected_bars"]

    def ensure(self) -> None:
        """Create the index if it is missing."""
        with mongo_errors("create its collections and indexes"):
            self._rejected.create_index([("symbol", 1), ("seen_at", -1)])

    def add(self, rejected: Iterable[Rejected], run_id: str, requested_at: datetime) -> None:
        """Store the rejected bars of an answer that was requested at ``requested_at`` (UTC).

        A rejection that is stored already keeps its first ``run_id`` and ``seen_at``; ``last_seen_at`` and ``times``
        are updated.
        """
        operations = [_upsert(item, run_id, requested_at) for item in rejected]
        with mongo_errors("store the rejected bars"):
            while operations:
                try:
                    self._rejected.bulk_write(operations, ordered=False)
                    return
                except BulkWriteError as error:
                    # Another tick inserted the same rejection at that moment. The second attempt updates it.
                    failed = error.details["writeErrors"]
                    if any(item["code"] != DUPLICATE_KEY for item in failed):
                        raise
                    operations = [operations[item["index"]] for item in failed]

    def find(
        self, symbols: Sequence[str] | None = None, reason: str | None = None, waiting: bool = True, limit: int = 0
    ) -> list[Document]:
        """Return rejected bars, newest first. ``waiting`` leaves out those that were replayed."""
        query: Document = {"replayed_at": None} if waiting else {}
        if symbols:
            query["symbol"] = {"$in": list(symbols)}
        if reason:
            query["reasons"] = reason
        with mongo_errors("list the rejected bars"):
            return list(self._rejected.find(query, sort=[("seen_at", -1)], limit=limit))

    def get(self, identifier: str) -> Document | None:
        """Return the rejected bar whose id is ``identifier`` or starts with it, or None where not exactly one does."""
        with mongo_errors("read the rejected bar"):
            found = list(self._rejected.find({"_id": {"$regex": f"^{re.escape(identifier)}"}}, limit=2))
        return found[0] if len(found) == 1 else None

    def expire(self, before: datetime) -> int:
        """Delete the rejected bars that no answer held since ``before`` (UTC). Return how many."""
        with mongo_errors("delete expired rejected bars"):
            return self._rejected.delete_many({"last_seen_at": {"$lt": before}}).deleted_count

    def counts(self) -> dict[str, int]:
        """Return by symbol how many rejected bars wait for a replay."""
        counted: dict[str, int] = defaultdict(int)
        with mongo_errors("count the rejected bars"):
            for document in self._rejected.find({"replayed_at": None}, {"symbol": 1}):
                counted[document["symbol"]] += 1
        return dict(counted)

    def replay(
        self,
        staging: Staging,
        documents: Sequence[Document],
        run_id: str,
        now: datetime,
        *,
        before_store: Callable[[str], object],
    ) -> Replayed:
        """Check rejected bars by today's rules and store those that pass.

        ``before_store`` gets each session's key before the first bar of that session is stored. A session that
        changed after the bar was last rejected keeps its own bars: a replay fills gaps and never undoes a newer value.
        """
        result, announced = Replayed(), set[str]()
        for document in documents:
            bar, reasons = _check_again(document, now)
            if bar is None:
                for reason in reasons:
                    result.refused[reason] = result.refused.get(reason, 0) + 1
                continue
            session = SessionBars.of(document["symbol"], session_day(bar), [bar])
            if session.key not in announced:
                before_store(session.key)
                announced.add(session.key)
            saved = staging.save([(session, document["last_seen_at"])], run_id, known_from=utc_now())[
                document["symbol"]
            ]
            result.stored += saved.new + saved.revised
            result.unchanged += saved.unchanged
            with mongo_errors("mark the bar as replayed"):
                self._rejected.update_one({"_id": document["_id"]}, {"$set": {"replayed_at": utc_now()}})
        return result


def _upsert(item: Rejected, run_id: str, requested_at: datetime) -> UpdateOne:
    payload, encoding, note = storable(item.payload)
    first: Document = {
        "symbol": item.symbol,
        "payload": payload,
        "reasons": list(item.reasons),
        "run_id": run_id,
        "seen_at": requested_at,
        "replayed_at": None,
        **({"encoding": encoding} if encoding else {}),
        **({"note": note} if note else {}),
    }
    change = {"$setOnInsert": first, "$max": {"last_seen_at": requested_at}, "$inc": {"times": 1}}
    return UpdateOne({"_id": rejection_id(item)}, change, upsert=True)


def storable(payload: Any) -> tuple[Any, str | None, str | None]:
    """Return a received row as MongoDB can hold it, its encoding and a note.

    The row stays as it is, or is its JSON text ("json") where MongoDB cannot hold it. Above ``MAX_PAYLOAD_BYTES`` it
    is the start of that text ("cut"), and the note says how much is missing.
    """
    text = _json(payload)
    if len(text) > MAX_PAYLOAD_BYTES:
        note = f"the row has {len(text):,} bytes; the first {MAX_PAYLOAD_BYTES:,} are stored, so it cannot be replayed"
        return text[:MAX_PAYLOAD_BYTES].decode("utf-8", "replace"), CUT, note
    if TOO_DEEP.encode() in text:
        return text.decode(), CUT, "a field of the row is nested too deeply, so it cannot be replayed"
    if text.count(b"[") + text.count(b"{") > MAX_NESTED:
        return text.decode(), JSON, None
    try:
        bson.encode({"payload": payload})
    except (BSONError, OverflowError):
        return text.decode(), JSON, None
    return payload, None, None


def _json(value: Any) -> bytes:
    """Return a received value as JSON. ``TOO_DEEP`` replaces the fields of a row that the encoder cannot write."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        if not isinstance(value, dict):
            return orjson.dumps(TOO_DEEP)
    return b"{%b}" % b",".join(b"%b:%b" % (_json(name), _json(value[name])) for name in sorted(value))


def received_row(document: Mapping[str, Any]) -> Any:
    """Return the row of a rejected bar as it was received."""
    payload = document["payload"]
    return orjson.loads(payload) if document.get("encoding") == JSON else payload


def rejection_id(item: Rejected) -> str:
    """Return the stable id of a rejection: a hash of its symbol, payload and reasons."""
    body = b"[%b,%b,%b]" % (_json(item.symbol), _json(item.payload), _json(sorted(item.reasons)))
    return hashlib.sha256(body).hexdigest()[:20]


def session_day(bar: Bar) -> date:
    """Return the session of a bar that is on the grid. During a session, the dates in UTC and New York are equal."""
    return bar.ts.date()


def _check_again(document: Mapping[str, Any], now: datetime) -> tuple[Bar | None, tuple[str, ...]]:
    """Return the bar that the row holds by today's rules, or None and the reason codes that remain."""
    cut = document.get("encoding") == CUT
    remaining = tuple(document["reasons"] if cut else REASONS_OF_ANSWERS.intersection(document["reasons"]))
    if remaining:
        return None, remaining
    reasons, bar = check_row(received_row(document), now)
    return bar, reasons
