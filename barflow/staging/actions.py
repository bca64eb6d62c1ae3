"""Staged corporate actions in MongoDB: one document per symbol with every version of its splits and dividends.

An action that changes or is withdrawn keeps its earlier version, with ``known_until``. A document changes atomically,
with an optimistic lock on ``version``. Its ``updated_at`` is when the actions changed last, or when a kind was first
fetched: the archive shows whether a symbol has no dividends or nobody asked for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from barflow.errors import BarflowError
from barflow.market.actions import Action, Dividend, Kind, Source, Split, Version
from barflow.market.sessions import utc_now
from barflow.staging.connection import Document, mongo_errors

MAX_ATTEMPTS = 100
# A source never changes an action of a better one: a file is the user's word, a derived ratio is rounded.
RANK: dict[Source, int] = {"derived": 0, "endpoint": 1, "file": 2}
DERIVED_TOLERANCE = 1e-3
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Answer:
    """Actions of one symbol and kind from one source.

    Args:
        symbol: The symbol.
        kind: The kind of all actions.
        actions: The actions, at most one per ex-date.
        source: Where they come from.
        requested_at: When they were asked for (UTC): an older answer changes nothing.
        known_from: When they were learned (UTC).
        covers: The first and last ex-date that the answer is complete for; None: every one. A file is never complete.
    """

    symbol: str
    kind: Kind
    actions: Sequence[Action]
    source: Source
    requested_at: datetime
    known_from: datetime
    covers: tuple[date, date] | None = None

    def is_complete_for(self, day: date) -> bool:
        """Return whether an action on that ex-date would be in the answer."""
        return self.source != "file" and (self.covers is None or self.covers[0] < day <= self.covers[1])


@dataclass
class Changes:
    """What an answer changed in the actions of a symbol."""

    new: int = 0
    changed: int = 0
    withdrawn: int = 0
    unchanged: int = 0

    def add(self, other: Changes) -> None:
        """Add other counts to these."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Known:
    """What is known of one symbol: every version of its actions, and by kind when and where it was last fetched."""

    versions: list[Version] = field(default_factory=list)
    fetched: dict[Kind, tuple[Source, datetime]] = field(default_factory=dict)

    @property
    def actions(self) -> list[Action]:
        """Return the current actions, oldest ex-date first."""
        return [item.action for item in self.versions if item.known_until is None]

    @property
    def kinds(self) -> frozenset[Kind]:
        """Return the kinds that were ever fetched or imported."""
        return frozenset({*self.fetched, *(item.action.kind for item in self.versions)})

    def has(self, kind: Kind) -> bool:
        """Return whether this kind was ever fetched or imported."""
        return kind in self.kinds


@dataclass(frozen=True)
class Changed:
    """The document of one symbol: its version, when its actions changed last (UTC), and what is known of them."""

    symbol: str
    version: int
    updated_at: datetime
    versions: tuple[Version, ...]
    kinds: frozenset[Kind]


def merged(versions: Iterable[Version], answer: Answer) -> tuple[list[Version], Changes]:
    """Return the versions after an answer, by ex-date and time, and what it changed. Pure."""
    given = {item.ex_date: item for item in answer.actions}
    after: list[Version] = []
    changes = Changes()
    for item in versions:
        old, day = item.action, item.action.ex_date
        if item.known_until is not None or old.kind != answer.kind:
            after.append(item)
            continue
        new = given.pop(day, None)
        better = RANK[answer.source] - RANK[old.source]
        if new is None and better >= 0 and answer.is_complete_for(day):
            after.append(replace(item, known_until=answer.known_from))
            changes.withdrawn += 1
        elif new is None or better < 0 or (better == 0 and _same(old, new)):
            after.append(item)
            changes.unchanged += 1
        else:
            after += [replace(item, known_until=answer.known_from), Version(new)]
            changes.changed += 1
    after += map(Version, given.values())
    changes.new = len(given)
    return sorted(after, key=lambda item: (item.action.ex_date, item.action.kind, item.action.known_from)), changes


def _same(old: Action, new: Action) -> bool:
    tolerance = DERIVED_TOLERANCE if new.source == "derived" else 0.0
    return math.isclose(old.value, new.value, rel_tol=tolerance)


class Actions:
    """The collection ``corporate_actions`` of one database."""

    def __init__(self, database: Database[Document]) -> None:
        self.collection = database["corporate_actions"]

    def ensure(self) -> None:
        """Create the index if it is missing, and stamp the documents of earlier releases as changed now."""
        with mongo_errors("create its collections and indexes"):
            self.collection.create_index("updated_at")
            earlier: Document = {"updated_at": {"$exists": False}}
            self.collection.update_many(earlier, {"$set": {"updated_at": utc_now()}})

    def changed(self, symbols: Sequence[str] | None, stamped_after: datetime | None) -> Iterator[Changed]:
        """Yield the documents, of all symbols or some, whose actions changed after a moment (UTC) or ever."""
        query: Document = {"updated_at": {"$gt": stamped_after or NEVER}}
        if symbols:
            query["_id"] = {"$in": list(symbols)}
        with mongo_errors("read the corporate actions"):
            for document in self.collection.find(query, sort=[("_id", 1)]):
                known = known_of(document)
                yield Changed(
                    document["_id"],
                    document["version"],
                    document["updated_at"],
                    tuple(known.versions),
                    known.kinds,
                )

    def counts(self) -> dict[str, int]:
        """Return the number of versions of each symbol that has any."""
        query: list[Document] = [{"$project": {"versions": {"$size": "$actions"}}}]
        with mongo_errors("count the corporate actions"):
            return {item["_id"]: item["versions"] for item in self.collection.aggregate(query) if item["versions"]}

    def of(self, symbols: Sequence[str] | None = None) -> dict[str, Known]:
        """Return what is known of each of the symbols, or of every symbol that is stored."""
        query: Document = {} if symbols is None else {"_id": {"$in": list(symbols)}}
        with mongo_errors("read the corporate actions"):
            found = {document["_id"]: known_of(document) for document in self.collection.find(query, sort=[("_id", 1)])}
        return found if symbols is None else {symbol: found.get(symbol, Known()) for symbol in symbols}

    def splits(self, symbols: Sequence[str]) -> dict[str, list[Split]]:
        """Return the current splits of the symbols that have any, oldest ex-date first. It reads no dividends."""
        current = {"$and": [{"$eq": ["$$this.kind", "split"]}, {"$eq": ["$$this.known_until", None]}]}
        fields: Document = {"actions": {"$filter": {"input": "$actions", "cond": current}}}
        with mongo_errors("read the splits"):
            found = list(self.collection.find({"_id": {"$in": list(symbols)}}, fields))
        known = {document["_id"]: known_of(document).actions for document in found}
        return {
            symbol: [item for item in actions if isinstance(item, Split)]
            for symbol, actions in known.items()
            if actions
        }

    def store(self, answers: Sequence[Answer]) -> Changes:
        """Store the answers of one symbol in one write. Return what they changed.

        Raises BarflowError if other runs keep changing the symbol. The same answers again change nothing.
        """
        symbol = answers[0].symbol
        with mongo_errors("store the corporate actions"):
            for _ in range(MAX_ATTEMPTS):
                old = self.collection.find_one({"_id": symbol}) or {"_id": symbol, "symbol": symbol, "version": 0}
                new, changes = _after(old, answers)
                if new == old:
                    return changes
                if new["actions"] != old.get("actions", []) or new["fetched"].keys() != old.get("fetched", {}).keys():
                    new["updated_at"] = utc_now()
                try:
                    # Without a document of this version, the upsert inserts one and collides with the other run's.
                    self.collection.replace_one(
                        {"_id": symbol, "version": old["version"]}, {**new, "version": old["version"] + 1}, upsert=True
                    )
                except DuplicateKeyError:
                    continue
                return changes
        raise BarflowError(
            f"{symbol}: the corporate actions are not stored, because other runs kept changing them. "
            "What was stored before is unchanged. Run the same command again."
        )


def _after(document: Document, answers: Sequence[Answer]) -> tuple[Document, Changes]:
    """Return the document after some answers, and what they changed."""
    known = known_of(document)
    versions, fetched, total = known.versions, dict(known.fetched), Changes()
    for answer in answers:
        if answer.kind in fetched and answer.source != "file" and answer.requested_at < fetched[answer.kind][1]:
            continue  # a newer answer is stored already
        versions, changes = merged(versions, answer)
        total.add(changes)
        if answer.source != "file":
            fetched[answer.kind] = answer.source, answer.requested_at
    stored = {
        "fetched": {kind: {"source": source, "requested_at": at} for kind, (source, at) in fetched.items()},
        "actions": [_to_document(item) for item in versions],
    }
    return {**document, **stored}, total


def _to_document(version: Version) -> Document:
    action = version.action
    extra: dict[str, Any] = {"currency": action.currency} if isinstance(action, Dividend) else {}
    return {
        "kind": action.kind,
        "ex_date": action.ex_date.isoformat(),
        "value": action.value,
        **extra,
        "source": action.source,
        "known_from": action.known_from,
        "known_until": version.known_until,
    }


def known_of(document: Document) -> Known:
    """Return what a stored document knows of its symbol. Raise KeyError, TypeError or ValueError for another one."""
    symbol = document["_id"]
    versions = []
    for item in document.get("actions", ()):
        day = date.fromisoformat(item["ex_date"])
        action: Action
        if item["kind"] == "split":
            action = Split(symbol, day, item["value"], item["source"], item["known_from"])
        else:
            action = Dividend(symbol, day, item["value"], item["currency"], item["source"], item["known_from"])
        versions.append(Version(action, item["known_until"]))
    fetched = {kind: (item["source"], item["requested_at"]) for kind, item in document.get("fetched", {}).items()}
    return Known(versions, fetched)
