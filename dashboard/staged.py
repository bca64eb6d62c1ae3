"""Reads of MongoDB: the newest staged sessions, cached in memory, and the alerts.

Changes are queried by their time stamp with an overlap, and recognized by their version. So a change is not lost where
the clocks of two hosts differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from bson.codec_options import DatetimeConversion
from pymongo.database import Database

from barflow.alerts.message import Message
from barflow.alerts.mutes import target
from barflow.alerts.outbox import Outbox
from barflow.backtest.stored import Backtests
from barflow.market.actions import Split
from barflow.market.bars import OF_A_BAR, SessionBars, document_key
from barflow.market.sessions import last_sessions, previous_session, session, utc_now
from barflow.staging.actions import Actions, Known, known_of
from barflow.staging.connection import UTC_AWARE, Document, mongo_errors
from barflow.staging.ledger import Ledger
from barflow.staging.sessions import KEYS_PER_QUERY, Staging, StoredSession, from_document
from dashboard.models import Alert, Backtest, HopRun, Mute
from dashboard.unreadable import MAX_COUNTED, Unreadable

OVERLAP = timedelta(seconds=20)
# Sessions of which a tick may still bring corrections.
REVISED_SESSIONS = 2
RECENT_SESSIONS = 5
# Before the first load, a chart shows at most this many staged sessions.
MAX_SESSIONS = 60
MAX_NEW_ALERTS = 200
UNUSED = {"known_from": 0}
# The newest alerts are searched in growing windows, from one hour to all time.
# A document with a wrong text or date is read, so that it is skipped alone. Without this, the whole read fails.
LENIENT = UTC_AWARE.with_options(
    unicode_decode_error_handler="replace", datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
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
    """Reads of one MongoDB database.

    ``recent`` holds the newest two sessions of each symbol, oldest first, and ``splits`` the splits of each symbol.

    Every read raises UnavailableError where MongoDB does not answer. ``unreadable`` counts the documents that were
    skipped because this version cannot read them.
    """

    def __init__(self, database: Database[Document]) -> None:
        database = database.with_options(codec_options=LENIENT)
        self.unreadable = Unreadable()
        self.ledger = Ledger(database)
        self.recent: dict[str, tuple[RecentSession, ...]] = {}
        self.splits: dict[str, tuple[Split, ...]] = {}
        self._staging, self._outbox, self._backtests = Staging(database), Outbox(database), Backtests(database)
        self._actions = Actions(database).collection
        self._bars_read = self._alerts_read = utc_now()
        self._actions_read: datetime | None = None
        self._actions_seen: dict[str, tuple[Any, Any]] = {}
        self._reported: dict[str, datetime] = {}

    def start(self, symbols: Iterable[str], now: datetime) -> None:
        """Fill ``recent`` for these symbols and for those of the last tick. ``now`` is the market's clock (UTC)."""
        self._bars_read = self._alerts_read = utc_now()
        tick = self.ledger.last("ingest") or {}
        names = sorted({*symbols, *(self.unreadable.read("ledger", tick, _symbols) or ())})
        days = [item.session_date for item in last_sessions(now, RECENT_SESSIONS)[::-1]]
        newest = self._staging.newest_sessions(names, days)
        keys = [document_key(symbol, day) for symbol, day in newest.items()]
        for symbol, day in newest.items():
            if before := previous_session(day):
                keys.append(document_key(symbol, before.session_date))
        self._update_recent(keys)

    def refresh(self) -> list[str]:
        """Read the sessions and actions that were stored since the last call. Return the changed symbols, sorted."""
        asked = utc_now()
        known = {
            document_key(symbol, item.session_date): item.version
            for symbol, held in self.recent.items()
            for item in held
        }
        with mongo_errors("read which bars changed"):
            query = {"updated_at": {"$gt": self._bars_read - OVERLAP}}
            stamped = list(self._staging.bars.find(query, {"version": 1}))
        versions = {item["_id"]: item.get("version") for item in stamped if isinstance(item["_id"], str)}
        changed = self._update_recent([key for key, version in versions.items() if known.get(key, -1) != version])
        self._bars_read = asked
        return sorted(changed | self._update_splits())

    def _update_splits(self) -> set[str]:
        """Read the splits that changed since the last call. Return those of the symbols that have recent sessions."""
        asked = utc_now()
        query = {"updated_at": {"$gt": self._actions_read - OVERLAP}} if self._actions_read else {}
        # One version is read once, although the overlap finds it for 20 seconds: 500 symbols hold 30,000 actions.
        with mongo_errors("read the corporate actions"):
            stamped = list(self._actions.find(query, {"version": 1, "updated_at": 1}))
            new = [item["_id"] for item in stamped if self._actions_seen.get(repr(item["_id"])) != _stamp(item)]
            found = [
                document
                for start in range(0, len(new), KEYS_PER_QUERY)
                for document in self._actions.find({"_id": {"$in": new[start : start + KEYS_PER_QUERY]}})
            ]
        changed: set[str] = set()
        for document in found:
            if known := self.unreadable.read("corporate_actions", document, known_of):
                symbol = str(document["_id"])
                splits = tuple(item for item in known.actions if isinstance(item, Split))
                if splits != self.splits.get(symbol, ()):
                    self.splits[symbol] = splits
                    changed.add(symbol)
            self._actions_seen[repr(document["_id"])] = _stamp(document)
        self._actions_read = asked
        return changed & self.recent.keys()

    def known(self, symbol: str) -> Known:
        """Return the corporate actions of a symbol, none where this version cannot read them."""
        with mongo_errors("read the corporate actions"):
            document = self._actions.find_one({"_id": symbol})
        read = document and self.unreadable.read("corporate_actions", document, known_of)
        return read or Known()

    def _update_recent(self, keys: Sequence[str]) -> set[str]:
        changed: set[str] = set()
        for symbol, summary in self._summaries(keys):
            by_date = {item.session_date: item for item in self.recent.get(symbol, ())}
            by_date[summary.session_date] = summary
            newest = tuple(by_date[day] for day in sorted(by_date)[-2:])
            if newest != self.recent.get(symbol):
                self.recent[symbol] = newest
                changed.add(symbol)
        return changed

    def _summaries(self, keys: Sequence[str]) -> Iterator[tuple[str, RecentSession]]:
        for start in range(0, len(keys), KEYS_PER_QUERY):
            with mongo_errors("read the bars"):
                query = {"_id": {"$in": keys[start : start + KEYS_PER_QUERY]}}
                found = list(self._staging.bars.find(query, UNUSED))
            for document in found:
                if summary := self.unreadable.read("bars", document, _summary):
                    yield summary

    def sessions(self, symbol: str, loaded: date | None) -> list[SessionBars]:
        """Return the staged sessions of a symbol that may be newer than the warehouse, newest first.

        ``loaded`` is the newest loaded session. Without one, return the newest MAX_SESSIONS staged sessions.
        """
        query: Document = {"symbol": symbol}
        if loaded is not None:
            first = previous_session(loaded, REVISED_SESSIONS)
            query["session_date"] = {"$gte": (first.session_date if first else loaded).isoformat()}
        with mongo_errors("read the newest bars"):
            found = self._staging.bars.find(query, UNUSED, sort=[("session_date", -1)], limit=MAX_SESSIONS)
            read = (self.unreadable.read("bars", document, _session) for document in found)
            return [bars for bars in read if bars]

    def alerts(self, symbols: Sequence[str], limit: int) -> list[Alert]:
        """Return the newest alerts that can be read, newest first.

        Alerts of some symbols are sorted by their bar, alerts of all symbols by the moment of their detection.
        """
        if symbols:
            return self._alerts({"symbol": {"$in": list(symbols)}}, "bar_start", limit)
        found: list[Alert] = []
        # The embedded server sorts every match before it applies the limit, so a small window is faster.
        for window in ALERT_WINDOWS:
            found = self._alerts({"created_at": {"$gt": utc_now() - window}} if window else {}, "created_at", limit)
            if len(found) == limit:
                break
        return found

    def mutes(self) -> list[Mute]:
        """Return the mutes that are active now, by the wall clock, without those that cannot be read."""
        read = (self.unreadable.read("mutes", item, _mute) for item in self._outbox.mutes.active(utc_now()))
        return [mute for mute in read if mute]

    def _alerts(self, query: Document, newest: str, limit: int) -> list[Alert]:
        """Return the newest alerts of a query. Read more of them while unreadable ones take up the limit."""
        for more in (0, MAX_COUNTED):
            with mongo_errors("list the alerts"):
                documents = list(self._outbox.alerts.find(query, sort=[(newest, -1)], limit=limit + more))
            read = [self.unreadable.read("alerts", document, _alert) for document in documents]
            found = [alert for alert in read if alert][:limit]
            if len(found) == limit or len(documents) < limit:
                break
        return found

    def new_alerts(self) -> list[Alert]:
        """Return the alerts that were detected since the last call, each once, oldest first."""
        asked, since = utc_now(), self._alerts_read - OVERLAP
        with mongo_errors("list the alerts"):
            query = {"created_at": {"$gt": since}}
            found = list(self._outbox.alerts.find(query, sort=[("created_at", 1)], limit=MAX_NEW_ALERTS))
        more = len(found) == MAX_NEW_ALERTS
        found = [document for document in found if isinstance(document["created_at"], datetime)]
        new = [document for document in found if repr(document["_id"]) not in self._reported]
        self._reported = {key: moment for key, moment in self._reported.items() if moment > since}
        self._reported |= {repr(document["_id"]): document["created_at"] for document in new}
        self._alerts_read = found[-1]["created_at"] + OVERLAP if more else asked
        read = [self.unreadable.read("alerts", document, _alert) for document in new]
        return [alert for alert in read if alert]

    def backtests(self) -> list[Backtest]:
        """Return the last backtests that can be read, newest first."""
        found = (self.unreadable.read("backtests", document, _backtest) for document in self._backtests.newest())
        return [item for item in found if item]

    def last_run(self, hop: str) -> HopRun | None:
        """Return the newest run of a hop, or None before the first one that can be read."""
        run = self.ledger.last(hop)
        return self.unreadable.read("ledger", run, _hop_run) if run else None

    def rejected(self) -> dict[str, int]:
        """Return the number of bars in quarantine, per symbol."""
        with mongo_errors("count the rejected bars"):
            counted = self._staging.database["rejected_bars"].aggregate(
                [{"$match": {"replayed_at": None}}, {"$group": {"_id": "$symbol", "count": {"$sum": 1}}}]
            )
            return {str(item["_id"]): item["count"] for item in counted}


def _stamp(document: Document) -> tuple[Any, Any]:
    """Return what changes with a document: its version, and when it changed last."""
    return document.get("version"), document.get("updated_at")


def _symbols(run: Document) -> list[str]:
    return [str(symbol) for symbol in run.get("symbols", ())]


def _summary(document: Document) -> tuple[str, RecentSession]:
    bars = _session(document)
    return bars.symbol, RecentSession.from_stored(StoredSession(bars, int(document["version"])))


def _session(document: Document) -> SessionBars:
    """Return a stored session. Raise ValueError or TypeError for one that no chart can show."""
    bars = from_document(document)
    traded = session(bars.session_date)
    if traded is None or not all(traded.opens <= ts < traded.closes for ts in bars.ts):
        raise ValueError("the bars are not those of a session")
    for name in OF_A_BAR[1:]:
        column = getattr(bars, name)
        if len(column) != len(bars) or not math.isfinite(sum(column)):
            raise ValueError(f"{name} does not have one number per bar")
    return bars


def _hop_run(run: Document) -> HopRun:
    known: dict[str, Any] = {name: run.get(name) for name in HopRun.model_fields}
    return HopRun(**known)


def _backtest(document: Document) -> Backtest:
    return Backtest(**{name: value for name, value in document.items() if name != "_id"})


def _alert(document: Document) -> Alert:
    return Alert(created_at=document["created_at"], message=Message(**document["message"]))


def _mute(document: Document) -> Mute:
    return Mute(covers=target(document), **{name: document[name] for name in ("until", "by", "reason")})


def sampled(closes: Sequence[float], count: int) -> list[float]:
    """Return at most ``count`` of the closes at equal steps, the newest one included."""
    step = max(1, -(-len(closes) // count))
    return list(closes[::-1][::step][::-1])
