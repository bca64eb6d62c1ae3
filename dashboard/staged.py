"""What is in MongoDB that the warehouse does not have yet? The newest sessions, kept in memory, and the alerts.

What changed is asked for by its stamp, a little back in time, and told by its version: a clock that is behind another
one loses nothing.
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
# Where nothing was loaded yet, a chart is made of so many staged sessions.
MOST_SESSIONS = 60
MOST_ALERTS_AT_ONCE = 200
# How far back the newest alerts are looked for: hours first, all of them in the end.
ALERT_REACHES = (*(timedelta(hours=4**step) for step in range(6)), None)


@dataclass(frozen=True)
class Day:
    """What the watch-list needs of a staged session: closes in dollars, volume in shares."""

    session_date: date
    version: int
    closes: tuple[float, ...]
    newest_bar: datetime
    volume: int

    @classmethod
    def of(cls, stored: StoredSession) -> Day:
        bars = stored.bars
        return cls(bars.session_date, stored.version, tuple(bars.close), bars.ts[-1], sum(bars.volume))


class Staged:
    """Reads of one MongoDB database. ``recent`` holds the newest two sessions of each symbol."""

    def __init__(self, database: Database[Document]) -> None:
        self.ledger = Ledger(database)
        self.recent: dict[str, tuple[Day, ...]] = {}
        self._staging, self._outbox = Staging(database), Outbox(database)
        self._stamp = self._noticed = utc_now()
        self._told: dict[str, datetime] = {}

    def start(self, symbols: Iterable[str], now: datetime) -> None:
        """Fills ``recent`` for these symbols and those of the last tick; ``now`` is the market's clock."""
        self._stamp = self._noticed = utc_now()
        tick = self.ledger.last("ingest") or {}
        names = sorted({*symbols, *tick.get("symbols", ())})
        days = [item.session_date for item in last_sessions(now, RECENT_SESSIONS)[::-1]]
        newest = self._staging.newest_sessions(names, days)
        keys = [document_key(symbol, day) for symbol, day in newest.items()]
        for symbol, day in newest.items():
            if before := previous_session(day):
                keys.append(document_key(symbol, before.session_date))
        self._keep(self._staging.sessions(keys))

    def refresh(self) -> list[str]:
        """Takes in what was stored since the last call. Returns the symbols that changed, in order."""
        asked = utc_now()
        known = {(symbol, day.session_date): day.version for symbol, days in self.recent.items() for day in days}
        keys = [
            document_key(item["symbol"], item["session_date"])
            for item in self._staging.counts(stamped_after=self._stamp - OVERLAP)
            if known.get((item["symbol"], date.fromisoformat(item["session_date"]))) != item["version"]
        ]
        changed = self._keep(self._staging.sessions(keys))
        self._stamp = asked
        return sorted(changed)

    def _keep(self, sessions: Iterable[StoredSession]) -> set[str]:
        changed: set[str] = set()
        for stored in sessions:
            symbol, day = stored.bars.symbol, Day.of(stored)
            held = {item.session_date: item for item in self.recent.get(symbol, ())} | {day.session_date: day}
            kept = tuple(held[found] for found in sorted(held)[-2:])
            if kept != self.recent.get(symbol):
                self.recent[symbol] = kept
                changed.add(symbol)
        return changed

    def sessions(self, symbol: str, loaded: date | None) -> list[SessionBars]:
        """The staged sessions that may differ from what was loaded up to a session, or the newest ones of all."""
        query: Document = {"symbol": symbol}
        if loaded is not None:
            first = previous_session(loaded, REVISED_SESSIONS)
            query["session_date"] = {"$gte": (first.session_date if first else loaded).isoformat()}
        with mongo_errors("read the newest bars"):
            found = self._staging.bars.find(query, sort=[("session_date", -1)], limit=MOST_SESSIONS)
            return [from_document(document) for document in found]

    def alerts(self, symbol: str | None, limit: int) -> list[Alert]:
        """Alerts: of one symbol the newest bar first, of all the last noticed first."""
        alerts = self._outbox.alerts
        with mongo_errors("list the alerts"):
            if symbol:
                return [*map(_alert, alerts.find({"symbol": symbol}, sort=[("bar_start", -1)], limit=limit))]
            found: list[Document] = []
            # Further and further back: the embedded server sorts whatever a query matches before it cuts.
            for reach in ALERT_REACHES:
                query = {"created_at": {"$gt": utc_now() - reach}} if reach else {}
                found = list(alerts.find(query, sort=[("created_at", -1)], limit=limit))
                if len(found) == limit:
                    break
            return [*map(_alert, found)]

    def new_alerts(self) -> list[Alert]:
        """The alerts that were noticed since the last call, each once, oldest first."""
        asked, since = utc_now(), self._noticed - OVERLAP
        with mongo_errors("list the alerts"):
            query = {"created_at": {"$gt": since}}
            found = list(self._outbox.alerts.find(query, sort=[("created_at", 1)], limit=MOST_ALERTS_AT_ONCE))
        fresh = [document for document in found if document["_id"] not in self._told]
        self._told = {key: moment for key, moment in self._told.items() if moment > since}
        self._told |= {document["_id"]: document["created_at"] for document in fresh}
        full = len(found) == MOST_ALERTS_AT_ONCE
        self._noticed = found[-1]["created_at"] + OVERLAP if full else asked
        return [_alert(document) for document in fresh]

    def rejected(self) -> dict[str, int]:
        """Per symbol how many refused bars wait."""
        with mongo_errors("count the rejected bars"):
            counted = self._staging.database["rejected_bars"].aggregate(
                [{"$match": {"replayed_at": None}}, {"$group": {"_id": "$symbol", "count": {"$sum": 1}}}]
            )
            return {item["_id"]: item["count"] for item in counted}


def _alert(document: Document) -> Alert:
    return Alert(created_at=document["created_at"], message=Message(**document["message"]))


def thinned(closes: Sequence[float], most: int) -> list[float]:
    """At most ``most`` of them, evenly chosen; the newest one always."""
    step = max(1, -(-len(closes) // most))
    return list(closes[::-1][::step][::-1])
