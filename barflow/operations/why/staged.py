"""What MongoDB knows of one bar: its staged versions, the answers that brought them, rejected rows, alerts, actions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import orjson
from pymongo.database import Database

from barflow.market.actions import Split
from barflow.market.bars import PRICES, VALUES, document_key
from barflow.market.sessions import BAR
from barflow.market.versions import BarVersion
from barflow.operations.why.moment import Slot
from barflow.operations.why.story import BarAction, BarAnswer, Delivered, Fired, RejectedRow
from barflow.staging.actions import Actions, Known
from barflow.staging.connection import Document, mongo_errors
from barflow.staging.quarantine import received_row
from barflow.staging.raw_answers import RawAnswers
from barflow.staging.sessions import from_document, known_from_of
from barflow.text import redacted

# A version that follows another one within the same millisecond is stored some milliseconds later.
SAME_MOMENT = timedelta(milliseconds=10)
# A replay stores its bars, then marks their rows as replayed.
REPLAY = timedelta(minutes=10)
# A row is rejected after its time, or before it as a bar of the future. The bound lets the query use the index.
MOST_AHEAD = timedelta(days=7)
# How many pages of a request are searched for the bar, and how many rejected rows are shown.
MOST_PAGES, MOST_REJECTED = 200, 50


@dataclass(frozen=True)
class StagedSession:
    """The staged session of a bar: its version, its last change (UTC), its bars' opens, and the bar's versions.

    ``current`` is the bar as staged, None where the session does not hold it.
    """

    version: int
    updated_at: datetime
    opens: list[datetime]
    current: BarVersion | None
    superseded: list[BarVersion] = field(default_factory=list)
    # When each superseded version was replaced (UTC), by its known_from.
    replaced_at: dict[datetime, datetime] = field(default_factory=dict)


def read_session(database: Database[Document], symbol: str, slot: Slot) -> StagedSession | None:
    """Return the staged session of a slot, or None where none is staged."""
    key = document_key(symbol, slot.day)
    with mongo_errors("read the session"):
        document = database["bars"].find_one({"_id": key})
    if document is None:
        return None
    bars = from_document(document)
    current = None
    if slot.ts in bars.ts:
        place = bars.ts.index(slot.ts)
        values = {name: getattr(bars, name)[place] for name in VALUES}
        current = BarVersion(**values, known_from=known_from_of(document)[place])
    staged = StagedSession(document["version"], document["updated_at"], bars.ts, current)
    query = {"symbol": symbol, "session_date": slot.day.isoformat(), "ts": slot.ts}
    with mongo_errors("read the earlier versions of the bar"):
        for item in database["bar_versions"].find(query):
            version = BarVersion(**{name: item[name] for name in (*VALUES, "known_from")})
            staged.superseded.append(version)
            staged.replaced_at[version.known_from] = item["stored_at"]
    return staged


def opens_next_to(database: Database[Document], symbol: str, slot: Slot) -> list[datetime]:
    """Return the opens (UTC) of the bars of the staged sessions next to a slot, its own session included."""
    found: list[datetime] = []
    with mongo_errors("find the bars next to a moment"):
        for comparison, order in (("$lte", -1), ("$gte", 1)):
            query = {"symbol": symbol, "session_date": {comparison: slot.day.isoformat()}}
            for document in database["bars"].find(query, {"ts": 1}, sort=[("session_date", order)], limit=2):
                found += document["ts"]
    return found


def answer_of(
    database: Database[Document], symbol: str, slot: Slot, version: BarVersion, rejected: Sequence[RejectedRow]
) -> BarAnswer | None:
    """Return the stored answer that brought a version, or None where none is stored.

    A later page of the same request may hold the bar. A version that a replay stored came with an earlier answer.
    """
    at = version.known_from
    around = {"requested_at": {"$gte": at - SAME_MOMENT, "$lte": at}, "symbols": symbol}
    for raw in _answers(database, around, newest_first=True):
        run = {"run_id": raw["run_id"], "requested_at": {"$gte": raw["requested_at"]}, "symbols": symbol}
        for page in (raw, *_answers(database, run)):
            if rows := [row for row in rows_of(page, symbol, slot.text) if holds(row, version)]:
                return _bar_answer(page, rows, version)
    for row in rejected:
        replayed = row.replayed_at
        if replayed and at - SAME_MOMENT <= replayed <= at + REPLAY and holds(row.payload, version):
            for raw in _answers(database, {"requested_at": row.last_seen_at, "symbols": symbol}):
                return _bar_answer(raw, [row.payload], version, replayed=row.id)
    return None


def _answers(database: Database[Document], query: Document, *, newest_first: bool = False) -> Iterator[Document]:
    return RawAnswers(database).find(query, newest_first=newest_first, limit=MOST_PAGES)


def rows_of(raw: Mapping[str, Any], symbol: str, opens: str) -> list[Any]:
    """Return the rows of an answer for one symbol whose datetime is ``opens``. Pure."""
    try:
        body = orjson.loads(raw["body"])
    except orjson.JSONDecodeError:
        return []
    if isinstance(body, dict) and "values" not in body:
        body = body.get(symbol)
    values = body.get("values") if isinstance(body, dict) else None
    rows = values if isinstance(values, list) else []
    return [row for row in rows if isinstance(row, dict) and row.get("datetime") == opens]


def holds(row: Any, version: BarVersion) -> bool:
    """Return whether a received row has the values of a version."""
    try:
        values = tuple(float(row[name]) for name in (*PRICES, "volume"))
    except (KeyError, TypeError, ValueError):
        return False
    return values == version.values


def _bar_answer(raw: Document, rows: list[Any], version: BarVersion, replayed: str | None = None) -> BarAnswer:
    return BarAnswer(
        revision=version.revision,
        requested_at=raw["requested_at"],
        run_id=raw["run_id"],
        http_status=raw["http_status"],
        symbols=raw["symbols"],
        credits=len(raw["symbols"]) * raw.get("credits", 1),
        note=raw.get("note"),
        rows=rows,
        replayed=replayed,
    )


def rejected_rows(database: Database[Document], names: Iterable[str], slot: Slot) -> list[RejectedRow]:
    """Return the rejected rows whose time is within the bar, oldest first, at most ``MOST_REJECTED``."""
    # Texts of times sort as the times do, and a row off the grid is within the bar too.
    first, end = f"{slot.ts:%Y-%m-%d %H:%M}", f"{slot.ts + BAR:%Y-%m-%d %H:%M}"
    within = {"payload.datetime": {"$gte": first, "$lt": end}}
    as_text = {"encoding": {"$exists": True}, "payload": {"$regex": slot.text}}
    seen = {"$gte": slot.ts - MOST_AHEAD}
    query: Document = {"symbol": {"$in": list(names)}, "seen_at": seen, "$or": [within, as_text]}
    with mongo_errors("list the rejected bars"):
        found = list(database["rejected_bars"].find(query, sort=[("seen_at", 1)], limit=MOST_REJECTED))
    return [
        RejectedRow(
            id=item["_id"],
            payload=item["payload"] if item.get("encoding") == "cut" else received_row(item),
            replayed_at=item.get("replayed_at"),
            **{name: item[name] for name in ("reasons", "run_id", "seen_at", "last_seen_at", "times")},
        )
        for item in found
    ]


def alerts_of(database: Database[Document], names: Iterable[str], slot: Slot) -> list[Fired]:
    """Return the alerts of the bar under any of its names, oldest first."""
    query: Document = {"symbol": {"$in": list(names)}, "bar_start": slot.ts}
    with mongo_errors("list the alerts"):
        found = list(database["alerts"].find(query, sort=[("created_at", 1), ("_id", 1)]))
    return [
        Fired(
            id=item["_id"],
            text=item["message"]["text"],
            channels={name: _delivered(state) for name, state in item["channels"].items()},
            **{name: item[name] for name in ("rule", "severity", "created_at")},
        )
        for item in found
    ]


def _delivered(state: Mapping[str, Any]) -> Delivered:
    error = state.get("last_error")
    return Delivered(
        delivered_at=state.get("delivered_at"),
        dropped_at=state.get("dropped_at"),
        muted_at=state.get("muted_at"),
        attempts=state.get("attempts", 0),
        last_error=redacted(str(error)) if error else None,
        next_at=None if any(map(state.get, ("delivered_at", "dropped_at", "muted_at"))) else state.get("next_at"),
    )


def known_actions(database: Database[Document], symbol: str) -> Known:
    """Return what is known of the corporate actions of a share, under its present symbol."""
    return Actions(database).of([symbol])[symbol]


def adjusting(known: Known, slot: Slot, today: date) -> list[BarAction]:
    """Return the current actions after the bar's session that are in effect on a day, oldest ex-date first. Pure."""
    found = []
    for action in sorted(known.actions, key=lambda item: item.ex_date):
        is_split = isinstance(action, Split)
        if not slot.day < action.ex_date <= today or action.value == (1 if is_split else 0):
            continue  # a ratio of 1 or an amount of 0 says that there was none
        found.append(
            BarAction(
                kind=action.kind,
                ex_date=action.ex_date,
                ratio=action.value if is_split else None,
                amount=None if is_split else action.value,
                label=action.label,
                source=action.source,
                known_from=action.known_from,
            )
        )
    return found
