"""Reads of MongoDB: the newest staged sessions, cached in memory, and the alerts.

Changes are queried by their time stamp with an overlap, and recognized by their version. So a change is not lost where
the clocks of two hosts differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pymongo.database import Database

from barflow.alerts.message import Message
from barflow.alerts.outbox import Outbox
from barflow.market.bars import SessionBars, document_key
from barflow.market.sessions import last_sessions, previous_session, utc_now
from barflow.staging.connection import Document, mongo_errors
from barflow.staging.ledger import Ledger
from barflow.staging.sessions import Staging, StoredSession, from_document
from dashboard.models import Alert

OVERLAP = timedelta(seconds=20)
# Sessions of which a tick may still bring corrections.
REVISED_SESSIONS = 2
RECENT_SESSIONS = 5
# Before the first load, a chart shows at most this many staged sessions.
MAX_SESSIONS = 60
MAX_NEW_ALERTS = 200
# The newest alerts are searched in growing windows, from one hour to all time.
ALERT_WINDOWS = (*(timedelta(hours=4**step) for step in range(6)), None)


@dataclass(frozen=True)
class RecentSession:
    """A staged session as the watch list needs it: closes in dollars, volume in shares, ``newest_bar`` in UTC."""

    session_date: date
    version: int
    closes: tuple[float, ...]
    newest_bar: datetime
    volume: int

    @classmethod
    def from_stored(cls, stored: StoredSession) -> RecentSession:
        """Summarize a stored session."""
        bars = stored.bars
        return cls(bars.session_date, stored.version, tuple(bars.close), bars.ts[-1], sum(bars.volume))


class Staged:
    """Reads of one MongoDB database. ``recent`` holds the newest two sessions of each symbol, oldest first.

    Every read raises UnavailableError where MongoDB does not answer.
    """

    def __init__(self, database: Database[Document]) -> None:
        self.ledger = Ledger(database)
        self.recent: dict[str, tuple[RecentSession, ...]] = {}
        self._staging, self._outbox = Staging(database), Outbox(database)
        self._bars_read = self._alerts_read = utc_now()
        self._reported: dict[str, datetime] = {}

    def start(self, symbols: Iterable[str], now: datetime) -> None:
        """Fill ``recent`` for these symbols and for those of the last tick. ``now`` is the market's clock (UTC)."""
        self._bars_read = self._alerts_read = utc_now()
        tick = self.ledger.last("ingest") or {}
        names = sorted({*symbols, *tick.get("symbols", ())})
        days = [item.session_date for item in last_sessions(now, RECENT_SESSIONS)[::-1]]
        newest = self._staging.newest_sessions(names, days)
        keys = [document_key(symbol, day) for symbol, day in newest.items()]
        for symbol, day in newest.items():
            if before := previous_session(day):
                keys.append(document_key(symbol, before.session_date))
        self._update_recent(self._staging.sessions(keys))

    def refresh(self) -> list[str]:
        """Read the sessions that were stored since the last call. Return the symbols that changed, sorted."""
        asked = utc_now()
        known = {(symbol, item.session_date): item.version for symbol, held in self.recent.items() for item in held}
        keys = [
            document_key(item["symbol"], item["session_date"])
            for item in self._staging.counts(stamped_after=self._bars_read - OVERLAP)
            if known.get((item["symbol"], date.fromisoformat(item["session_date"]))) != item["version"]
        ]
        changed = self._update_recent(self._staging.sessions(keys))
        self._bars_read = asked
        return sorted(changed)

    def _update_recent(self, sessions: Iterable[StoredSession]) -> set[str]:
        changed: set[str] = set()
        for stored in sessions:
            symbol, session = stored.bars.symbol, RecentSession.from_stored(stored)
            by_date = {item.session_date: item for item in self.recent.get(symbol, ())}
            by_date[session.session_date] = session
            newest = tuple(by_date[day] for day in sorted(by_date)[-2:])
            if newest != self.recent.get(symbol):
                self.recent[symbol] = newest
                changed.add(symbol)
        return changed

    def sessions(self, symbol: str, loaded: date | None) -> list[SessionBars]:
        """Return the staged sessions of a symbol that may be newer than the warehouse, newest first.

        ``loaded`` is the newest loaded session. Without one, return the newest MAX_SESSIONS staged sessions.
        """
        query: Document = {"symbol": symbol}
        if loaded is not None:
            first = previous_session(loaded, REVISED_SESSIONS)
            query["session_date"] = {"$gte": (first.session_date if first else loaded).isoformat()}
        with mongo_errors("read the newest bars"):
            found = self._staging.bars.find(query, sort=[("session_date", -1)], limit=MAX_SESSIONS)
            return [from_document(document) for document in found]

    def alerts(self, symbol: str | None, limit: int) -> list[Alert]:
        """Return the newest alerts, newest first.

        Alerts of one symbol are sorted by their bar, alerts of all symbols by the moment of their detection.
        """
        alerts = self._outbox.alerts
        with mongo_errors("list the alerts"):
            if symbol:
                return [*map(_alert, alerts.find({"symbol": symbol}, sort=[("bar_start", -1)], limit=limit))]
            found: list[Document] = []
            # The embedded server sorts every match before it applies the limit, so a small window is faster.
            for window in ALERT_WINDOWS:
                query = {"created_at": {"$gt": utc_now() - window}} if window else {}
                found = list(alerts.find(query, sort=[("created_at", -1)], limit=limit))
                if len(found) == limit:
                    break
            return [*map(_alert, found)]

    def new_alerts(self) -> list[Alert]:
        """Return the alerts that were detected since the last call, each once, oldest first."""
        asked, since = utc_now(), self._alerts_read - OVERLAP
        with mongo_errors("list the alerts"):
            query = {"created_at": {"$gt": since}}
            found = list(self._outbox.alerts.find(query, sort=[("created_at", 1)], limit=MAX_NEW_ALERTS))
        new = [document for document in found if document["_id"] not in self._reported]
        self._reported = {key: moment for key, moment in self._reported.items() if moment > since}
        self._reported |= {document["_id"]: document["created_at"] for document in new}
        more = len(found) == MAX_NEW_ALERTS
        self._alerts_read = found[-1]["created_at"] + OVERLAP if more else asked
        return [_alert(document) for document in new]

    def rejected(self) -> dict[str, int]:
        """Return the number of bars in quarantine, per symbol."""
        with mongo_errors("count the rejected bars"):
            counted = self._staging.database["rejected_bars"].aggregate(
                [{"$match": {"replayed_at": None}}, {"$group": {"_id": "$symbol", "count": {"$sum": 1}}}]
            )
            return {item["_id"]: item["count"] for item in counted}


def _alert(document: Document) -> Alert:
    return Alert(created_at=document["created_at"], message=Message(**document["message"]))


def sampled(closes: Sequence[float], count: int) -> list[float]:
    """Return at most ``count`` of the closes at equal steps, the newest one included."""
    step = max(1, -(-len(closes) // count))
    return list(closes[::-1][::step][::-1])
