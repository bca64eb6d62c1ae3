"""Twelve Data's answers as received, errors included: compressed, kept for 30 days, with the credits they cost."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol

from pymongo.database import Database

from barflow.staging.connection import Document, mongo_errors

ANSWERS_KEPT = timedelta(days=30)
# A document holds at most 16 MB. A larger body is stored in several documents.
PART_BYTES = 12_000_000


class RawResponse(Protocol):
    """An HTTP answer as received, such as barflow.twelvedata.http.RawResponse."""

    @property
    def body(self) -> bytes:
        """Return the body without the API key."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the requested symbols."""

    @property
    def requested_at(self) -> datetime:
        """Return the moment of the request, in UTC."""

    @property
    def http_status(self) -> int:
        """Return the HTTP status."""

    @property
    def note(self) -> str | None:
        """Return what the body leaves out, if anything."""


class RawAnswers:
    """The collection ``raw_responses`` of one database."""

    def __init__(self, database: Database[Document]) -> None:
        self._raw = database["raw_responses"]

    def ensure(self) -> None:
        """Create the indexes that are missing. One of them deletes expired answers."""
        with mongo_errors("create its collections and indexes"):
            self._raw.create_index("requested_at", expireAfterSeconds=int(ANSWERS_KEPT.total_seconds()))
            self._raw.create_index("run_id")

    def store(self, raw: RawResponse, run_id: str, credits: int = 1) -> None:
        """Store an answer in one or more documents. ``credits`` is what the request costs for each symbol."""
        common: Document = {
            "run_id": run_id,
            "symbols": list(raw.symbols),
            "requested_at": raw.requested_at,
            "http_status": raw.http_status,
            **({"note": raw.note} if raw.note else {}),
            **({"credits": credits} if credits != 1 else {}),
        }
        packed = zlib.compress(raw.body, level=1)
        cuts = range(0, len(packed), PART_BYTES)
        documents = [
            {**common, "body": packed[cut : cut + PART_BYTES], "encoding": "zlib", "part": part, "parts": len(cuts)}
            for part, cut in enumerate(cuts, start=1)
        ]
        with mongo_errors("store the raw answer"):
            self._raw.insert_many(documents)

    def find(self, query: Document, *, newest_first: bool, limit: int) -> Iterator[Document]:
        """Yield answers by the time of their request, each with its whole body. One body at a time is in memory.

        ``limit`` is the most documents that are read. Most answers of earlier releases are text, without ``encoding``.
        """
        by_time: list[tuple[str, Any]] = [("requested_at", -1 if newest_first else 1), ("part", 1)]
        parts = list[bytes]()
        with mongo_errors("read the answers"):
            for item in list(self._raw.find(query, {"_id": 1}, sort=by_time, limit=limit)):
                document = self._raw.find_one(item)
                if document is None:
                    continue  # it has just expired
                if "encoding" not in document:
                    yield document
                    continue
                parts.append(document["body"])
                if document["part"] == document["parts"]:
                    yield {**document, "body": zlib.decompress(b"".join(parts))}
                    parts = []

    def credits_since(self, moment: datetime) -> int:
        """Return the API credits of all requests since ``moment`` (UTC), refused ones included."""
        requests = {"requested_at": {"$gte": moment}, "part": {"$in": [None, 1]}}
        with mongo_errors("count the API credits of the day"):
            found = self._raw.find(requests, {"symbols": 1, "credits": 1})
            return sum(len(item["symbols"]) * item.get("credits", 1) for item in found)
