"""What Twelve Data was asked for and has answered: one document per symbol, so that a backfill asks once.

A document holds ranges of sessions. A session is in a range if it was asked for after it had closed, whether the answer
had bars or not. Ranges that touch are merged, so a document stays small. Changes take effect with an optimistic lock on
``version``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from pymongo import ReplaceOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from barflow.errors import BarflowError
from barflow.market.bars import INTERVAL
from barflow.market.sessions import Session, previous_session, sessions_between
from barflow.staging.connection import DUPLICATE_KEY, Document, mongo_errors

# How long after its last attempt an unfinished `--again` is resumed. Later, it starts from the beginning.
RESUMED_WITHIN = timedelta(days=7)
MAX_ATTEMPTS = 100

Change = Callable[[Document], Document]


@dataclass(frozen=True)
class Range:
    """Sessions from ``first`` to ``last``, both included. ``requested_at`` (UTC) is the time of their oldest answer."""

    first: date
    last: date
    requested_at: datetime

    def to_document(self) -> Document:
        """Return the range as it is stored."""
        return {
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "requested_at": self.requested_at,
        }


@dataclass(frozen=True)
class Answered:
    """What Twelve Data has answered for one symbol. ``first_bar`` is the day of its first bar, where that is known."""

    ranges: list[Range] = field(default_factory=list)
    first_bar: date | None = None
    first_bar_is_asked: bool = False

    def includes(self, day: date) -> bool:
        """Return whether the session of that day was answered after it had closed."""
        return any(item.first <= day <= item.last for item in self.ranges)


def closed_sessions(start: datetime, end: datetime, now: datetime) -> list[Session]:
    """Return the sessions that a request covers whole, and that had closed by ``now``.

    ``start`` and ``end`` are the opens of the first and the last bar of the request. All times are in UTC.
    """
    found = sessions_between(start.date(), end.date())
    return [item for item in found if start <= item.opens and item.slots[-1] <= end and item.closes <= now]


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges in order, those joined that overlap or that have no session between them. Pure."""
    joined: list[Range] = []
    for item in sorted(ranges, key=lambda item: item.first):
        before = previous_session(item.first)
        if joined and (item.first <= joined[-1].last or before is None or before.session_date <= joined[-1].last):
            last = joined.pop()
            item = Range(last.first, max(last.last, item.last), min(last.requested_at, item.requested_at))
        joined.append(item)
    return joined


def without(ranges: Iterable[Range], first: date, last: date) -> list[Range]:
    """Return what the ranges hold outside ``first`` to ``last``, both included. Pure."""
    day = timedelta(days=1)
    left: list[Range] = []
    for item in ranges:
        parts = (item.first, min(item.last, first - day)), (max(item.first, last + day), item.last)
        left += [Range(start, end, item.requested_at) for start, end in parts if start <= end]
    return left


class Requests:
    """The collection ``requests`` of one database."""

    def __init__(self, database: Database[Document]) -> None:
        self.collection = database["requests"]

    def of(self, symbols: Sequence[str]) -> dict[str, Answered]:
        """Return what is known of each of the symbols."""
        with mongo_errors("read which sessions were answered"):
            found = {document["symbol"]: _answered(document) for document in self._documents(symbols)}
        return {symbol: found.get(symbol, Answered()) for symbol in symbols}

    def add(self, ranges: Mapping[str, Range]) -> None:
        """Record the answers of some symbols. A range that is known already is not written again."""
        self._change({symbol: _adding(item) for symbol, item in ranges.items()})

    def set_first_bar(self, symbol: str, day: date | None) -> None:
        """Record the day of a symbol's first bar, or with None that Twelve Data was asked and did not say."""
        self._change({symbol: lambda document: {**document, "first_bar": day and day.isoformat()}})

    def begin_again(self, symbols: Sequence[str], first: date, last: date, now: datetime) -> None:
        """Forget the answers for ``first`` to ``last``, so that a backfill asks for these sessions again.

        Where the same was begun and not ended within ``RESUMED_WITHIN``, nothing more is forgotten.
        """
        self._change(dict.fromkeys(symbols, _forgetting(first, last, now)))

    def end_again(self, symbols: Sequence[str]) -> None:
        """Record that every session of ``begin_again`` is answered."""
        self._change(
            dict.fromkeys(symbols, lambda document: {name: document[name] for name in document if name != "again"})
        )

    def _documents(self, symbols: Iterable[str]) -> list[Document]:
        return [*self.collection.find({"_id": {"$in": [_key(symbol) for symbol in symbols]}})]

    def _change(self, changes: Mapping[str, Change]) -> None:
        """Apply a change to each symbol's document. One that another run changed in between is read again."""
        pending = dict(changes)
        with mongo_errors("store which sessions were answered"):
            for _ in range(MAX_ATTEMPTS):
                pending = self._change_once(pending)
                if not pending:
                    return
        raise BarflowError(
            f"{', '.join(pending)}: the answered sessions are not recorded, because other runs kept changing them. "
            "The bars are stored. Run the same command again."
        )

    def _change_once(self, changes: dict[str, Change]) -> dict[str, Change]:
        """Read, change and write once. Return the changes that lost a race."""
        stored = {document["symbol"]: document for document in self._documents(changes)}
        names: list[str] = []
        writes: list[ReplaceOne[Document]] = []
        for symbol, change in changes.items():
            old = stored.get(symbol, {"_id": _key(symbol), "symbol": symbol, "interval": INTERVAL, "version": 0})
            new = change(old)
            if new != old:
                names.append(symbol)
                # Without a document of this version, the upsert inserts one and collides with the other run's `_id`.
                same = {"_id": old["_id"], "version": old["version"]}
                writes.append(ReplaceOne(same, {**new, "version": old["version"] + 1}, upsert=True))
        if not writes:
            return {}
        try:
            self.collection.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            problems = error.details["writeErrors"]
            if any(problem["code"] != DUPLICATE_KEY for problem in problems):
                raise
            lost = [names[problem["index"]] for problem in problems]
            return {symbol: changes[symbol] for symbol in lost}
        return {}


def _adding(new: Range) -> Change:
    def change(document: Document) -> Document:
        again = document.get("again")
        if again and new.requested_at < again["begun_at"]:
            return document  # asked before `--again` began: it does not count for it
        known = _answered(document).ranges
        if any(item.first <= new.first and new.last <= item.last for item in known):
            return document
        return {**document, "answered": [item.to_document() for item in merged([*known, new])]}

    return change


def _forgetting(first: date, last: date, now: datetime) -> Change:
    def change(document: Document) -> Document:
        asked = {"first": first.isoformat(), "last": last.isoformat()}
        again = document.get("again") or {}
        if asked == {name: again.get(name) for name in asked} and now - again["tried_at"] <= RESUMED_WITHIN:
            return {**document, "again": {**again, "tried_at": now}}
        left = without(_answered(document).ranges, first, last)
        marked = {
            **document,
            "answered": [item.to_document() for item in left],
            "again": {**asked, "begun_at": now, "tried_at": now},
        }
        if (day := _answered(document).first_bar) and first < day:
            del marked["first_bar"]
        return marked

    return change


def _answered(document: Document) -> Answered:
    ranges = [
        Range(date.fromisoformat(item["first"]), date.fromisoformat(item["last"]), item["requested_at"])
        for item in document.get("answered", ())
    ]
    day = document.get("first_bar")
    return Answered(ranges, date.fromisoformat(day) if day else None, "first_bar" in document)


def _key(symbol: str) -> str:
    return f"{symbol}|{INTERVAL}"
