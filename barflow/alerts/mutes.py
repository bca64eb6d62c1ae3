"""Mutes: an operator stops the sending of a rule's or a symbol's alerts until a moment.

A muted alert fires and is stored as any other, under the same id, but it is not sent. No mute is deleted: one that was
ended shows who ended it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from pymongo.database import Database

from barflow.market.sessions import utc_now
from barflow.staging.connection import Document, mongo_errors

# Another delivery may be reporting the mute. After this time, it has died or Slack did not accept the message.
REPORT_AGAIN = timedelta(minutes=2)


class Mutes:
    """The collection ``mutes``: one document per mute. All times are UTC.

    ``rule`` is a rule's id or None for every rule, ``symbols`` are those of a mute, or empty for every symbol. A mute
    ends at ``until``, or before that at ``ended_at``. ``reported_at`` is when its end at ``until`` was reported.
    """

    def __init__(self, database: Database[Document]) -> None:
        self._mutes = database["mutes"]

    def ensure(self) -> None:
        """Create the index that is missing."""
        with mongo_errors("create its collections and indexes"):
            self._mutes.create_index("until")

    def add(self, rule: str | None, symbols: Sequence[str], until: datetime, by: str, reason: str | None) -> Document:
        """Add a mute that starts now. It replaces an active one of the same rule and symbols."""
        now = utc_now()
        document: Document = {
            "rule": rule,
            "symbols": sorted(symbols),
            "until": until,
            "by": by,
            "reason": reason,
            "since": now,
            "ended_at": None,
            "ended_by": None,
            "reported_at": None,
            "report_at": until,
        }
        with mongo_errors("mute the alerts"):
            added = self._mutes.insert_one(document).inserted_id
        # Only earlier ones: of two that are added at the same time, one must stay.
        earlier = {"$or": [{"since": {"$lt": _stored(now)}}, {"since": _stored(now), "_id": {"$lt": added}}]}
        self._end({"rule": rule, "symbols": sorted(symbols), **earlier}, by, now)
        return document

    def end(self, rule: str | None, symbols: Sequence[str], by: str, now: datetime) -> int:
        """End the active mutes of a rule (all of them without symbols) or of a symbol. Return how many there were."""
        of_symbols = {"symbols": sorted(symbols)} if symbols else {}
        return self._end({"rule": rule, **of_symbols}, by, now)

    def _end(self, query: Document, by: str, now: datetime) -> int:
        with mongo_errors("end a mute"):
            return self._mutes.update_many(
                {**query, **_active(now)}, {"$set": {"ended_at": now, "ended_by": by}}
            ).modified_count

    def active(self, now: datetime) -> list[Document]:
        """Return the mutes that are active, the first to end first."""
        with mongo_errors("read which alerts are muted"):
            return list(self._mutes.find(_active(now), sort=[("until", 1)]))

    def all(self) -> list[Document]:
        """Return every mute, newest first."""
        with mongo_errors("read which alerts are muted"):
            return list(self._mutes.find(sort=[("since", -1)]))

    def report(self, now: datetime, post: Callable[[str], None]) -> None:
        """Post each mute that reached its end, normally once although several deliveries run.

        An error of ``post`` is raised. The mute is then reported later.
        """
        due = {"until": {"$lte": now}, "ended_at": None, "reported_at": None, "report_at": {"$lte": now}}
        while True:
            with mongo_errors("record that a mute has ended"):
                found = self._mutes.find_one_and_update(due, {"$set": {"report_at": now + REPORT_AGAIN}})
            if found is None:
                return
            post(ended_text(found))
            with mongo_errors("record that a mute has ended"):
                self._mutes.update_one({"_id": found["_id"]}, {"$set": {"reported_at": now}})


def _stored(moment: datetime) -> datetime:
    """Return a moment as MongoDB stores it, in whole milliseconds."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _active(now: datetime) -> Document:
    return {"until": {"$gt": now}, "ended_at": None}


def is_muted(mutes: Iterable[Document], rule: str, symbol: str) -> bool:
    """Return whether one of these mutes covers the alerts of a rule for a symbol."""
    return any(item["rule"] in (None, rule) and symbol in (item["symbols"] or (symbol,)) for item in mutes)


def target(mute: Document) -> str:
    """Return what a mute covers, such as ``gap_5pct for AAPL, TSLA``."""
    symbols = ", ".join(mute["symbols"])
    return f"{mute['rule']} for {symbols}" if mute["rule"] and symbols else mute["rule"] or symbols


def ended_text(mute: Document) -> str:
    """Return the report about a mute that reached its end."""
    reason = f": {mute['reason']}" if mute["reason"] else ""
    return (
        f"the mute of {target(mute)} ({mute['by']}{reason}) ended at {mute['until']:%Y-%m-%d %H:%M} UTC; "
        "its alerts are sent again"
    )
