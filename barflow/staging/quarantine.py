"""The quarantine: every refused bar with its reasons and payload, and its way back after a fix (guarantee G5)."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import bson
import orjson
from bson.errors import BSONError
from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from barflow.alerts.outbox import Intents
from barflow.market.bars import Bar, SessionBars
from barflow.market.sessions import utc_now
from barflow.market.validation import CONFLICTING_DUPLICATE, WRONG_SYMBOL, Rejected, check_row
from barflow.staging.connection import DUPLICATE_KEY, Document, mongo_errors
from barflow.staging.sessions import Staging

# Codes that say something of the answer, not of the row: the row alone cannot clear them.
FINAL = {CONFLICTING_DUPLICATE, WRONG_SYMBOL}


@dataclass
class Replayed:
    """What a replay did: how many came back as new or revised, were there already, or are refused still."""

    stored: int = 0
    unchanged: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Quarantine:
    """The collection ``rejected_bars``. The same refusal, seen again by a later tick, is one document."""

    def __init__(self, database: Database[Document]) -> None:
        self._rejected = database["rejected_bars"]

    def ensure(self) -> None:
        with mongo_errors("prepare its collections"):
            self._rejected.create_index([("symbol", 1), ("seen_at", -1)])

    def add(self, rejected: Iterable[Rejected], run_id: str, asked: datetime) -> None:
        """Keeps each refused bar of an answer that was asked for at that moment (UTC).

        Seen again, its first run and time stay, ``last_seen_at`` and ``times`` move.
        """
        operations = [_keep(item, run_id, asked) for item in rejected]
        with mongo_errors("keep the rejected bars"):
            while operations:
                try:
                    self._rejected.bulk_write(operations, ordered=False)
                    return
                except BulkWriteError as error:
                    # Another tick inserted the same refusal at that moment; the second try finds it.
                    failed = error.details["writeErrors"]
                    if any(item["code"] != DUPLICATE_KEY for item in failed):
                        raise
                    operations = [operations[item["index"]] for item in failed]

    def find(
        self, symbols: Sequence[str] | None = None, reason: str | None = None, waiting: bool = True, limit: int = 0
    ) -> list[Document]:
        """Refused bars, newest first; ``waiting`` leaves out those that were replayed."""
        query: Document = {"replayed_at": None} if waiting else {}
        if symbols:
            query["symbol"] = {"$in": list(symbols)}
        if reason:
            query["reasons"] = reason
        with mongo_errors("list the rejected bars"):
            return list(self._rejected.find(query, sort=[("seen_at", -1)], limit=limit))

    def one(self, identifier: str) -> Document | None:
        """The refused bar with that id, or with the one id that starts so."""
        with mongo_errors("show the rejected bar"):
            found = list(self._rejected.find({"_id": {"$regex": f"^{re.escape(identifier)}"}}, limit=2))
        return found[0] if len(found) == 1 else None

    def counts(self) -> dict[str, int]:
        """Per symbol how many refused bars wait."""
        counted: dict[str, int] = defaultdict(int)
        with mongo_errors("count the rejected bars"):
            for document in self._rejected.find({"replayed_at": None}, {"symbol": 1}):
                counted[document["symbol"]] += 1
        return dict(counted)

    def replay(self, staging: Staging, documents: Sequence[Document], run_id: str, now: datetime) -> Replayed:
        """Judges refused bars by today's rules and stores those that pass.

        A session that changed after the bar was last refused keeps its own bars: a replay fills its gaps and never
        undoes news. The next tick judges it for alerts.
        """
        result, intents, noted = Replayed(), Intents(staging.database), set[str]()
        for document in documents:
            bar, reasons = _judge(document, now)
            if bar is None:
                for reason in reasons:
                    result.refused[reason] = result.refused.get(reason, 0) + 1
                continue
            session = SessionBars.of(document["symbol"], session_day(bar), [bar])
            if session.key not in noted:
                intents.add(run_id, [session.key])
                noted.add(session.key)
            saved = staging.save([(session, document["last_seen_at"])], run_id)[document["symbol"]]
            result.stored += saved.new + saved.revised
            result.unchanged += saved.unchanged
            with mongo_errors("mark the bar as replayed"):
                self._rejected.update_one({"_id": document["_id"]}, {"$set": {"replayed_at": utc_now()}})
        return result


def _keep(item: Rejected, run_id: str, asked: datetime) -> UpdateOne:
    payload, encoding = storable(item.payload)
    first: Document = {
        "symbol": item.symbol,
        "payload": payload,
        "reasons": list(item.reasons),
        "run_id": run_id,
        "seen_at": asked,
        "replayed_at": None,
        **({"encoding": encoding} if encoding else {}),
    }
    change = {"$setOnInsert": first, "$max": {"last_seen_at": asked}, "$inc": {"times": 1}}
    return UpdateOne({"_id": identity(item)}, change, upsert=True)


def storable(payload: Any) -> tuple[Any, str | None]:
    """A received row as MongoDB can hold it: as it is, or as JSON text where BSON has no form for it ("json")."""
    try:
        bson.encode({"payload": payload})
    except (BSONError, OverflowError, RecursionError):
        return orjson.dumps(payload).decode(), "json"
    return payload, None


def received(document: Mapping[str, Any]) -> Any:
    """The row of a rejected bar as it was received."""
    payload = document["payload"]
    return orjson.loads(payload) if document.get("encoding") == "json" else payload


def identity(item: Rejected) -> str:
    """A stable id of a refusal: its symbol, payload and reasons."""
    body = orjson.dumps([item.symbol, item.payload, sorted(item.reasons)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(body).hexdigest()[:20]


def session_day(bar: Bar) -> date:
    """The session of a bar that is on the grid: its UTC and New York dates are the same."""
    return bar.ts.date()


def _judge(document: Mapping[str, Any], now: datetime) -> tuple[Bar | None, tuple[str, ...]]:
    final = tuple(FINAL.intersection(document["reasons"]))
    if final:
        return None, final
    reasons, bar = check_row(received(document), now)
    return bar, reasons
