"""The journal of evaluations: what each evaluation of alerts saw, so that a backtest can see exactly the same.

The times from which bars and splits are known do not say that. An answer is stored some time after it was asked for, a
slow one after a newer one, and the evaluation of a tick that died is done by a later tick. So an evaluation records its
moment, and of each symbol the bars that are new since the symbol's last evaluation, before it writes a state. It took
effect if the state was written: then a later evaluation, or the state itself, names it. A comparison, which evaluates
the rules that name another symbol, is recorded as an evaluation that saw no bars: it names the states that it compared.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import bson
import orjson
from pymongo.database import Database

from barflow.alerts.history import EvaluatedSession, SymbolState, slot_numbers
from barflow.alerts.rules import ALL, RuleBook
from barflow.market.bars import Bar, SessionBars
from barflow.market.sessions import session
from barflow.staging.connection import Document, mongo_errors
from barflow.staging.sessions import StoredSession

# As long as the alerts in the outbox.
EXPIRES_AFTER = timedelta(days=90)
# A document holds at most 16 MB. A first evaluation has all sessions that the rules look at.
PART_BYTES = 8_000_000
# The evaluation of an earlier release that wrote a state.
UNRECORDED = "unrecorded"
TIME = "%Y%m%dT%H%M%S.%fZ"
PRICES = ("open", "high", "low", "close")
# A bar: revision, open, high, low, close, volume.
Row = tuple[int, float, float, float, float, int]


@dataclass(frozen=True)
class SeenSession:
    """A session that an evaluation saw at this version: all its bars by slot, or those that are new or revised."""

    day: date
    version: int
    is_whole: bool
    rows: Mapping[int, Row]

    @classmethod
    def of(cls, stored: StoredSession, state: SymbolState) -> SeenSession:
        """Return a session as it is, or what is new in it since a state."""
        bars, old = stored.bars, state.sessions.get(stored.bars.session_date)
        slots = slot_numbers(bars)
        # A session that expired and was fetched again begins with version 1 again.
        news = None if old is None or old.version == stored.version else _news(bars, slots, old)
        rows = {
            slots[at]: (bars.revision[at] & 255, *(column[at] for column in _values(bars)))
            for at in (range(len(slots)) if news is None else news)
        }
        return cls(bars.session_date, stored.version, news is None, rows)  # type: ignore[arg-type]

    def stored(self, symbol: str) -> StoredSession:
        """Return the session of a symbol, which must be whole."""
        traded = session(self.day)
        assert traded is not None, "only sessions are stored"
        slots = sorted(self.rows)
        bars = [Bar(traded.slots[slot], *self.rows[slot][1:], self.rows[slot][0]) for slot in slots]
        return StoredSession(SessionBars.of(symbol, self.day, bars), self.version)

    def packed(self) -> list[Any]:
        """Return the session for the journal. A bar takes 42 bytes."""
        count, columns = len(self.rows), [*zip(*self.rows.values(), strict=True)] or [()] * 6
        revisions, *values = columns
        numbers = struct.pack(f"<{4 * count}d{count}q", *(number for column in values for number in column))
        return [self.day.isoformat(), self.version, self.is_whole, bytes(self.rows), bytes(revisions), numbers]

    @classmethod
    def unpacked(cls, values: Sequence[Any]) -> SeenSession:
        """Return the session of the journal."""
        day, version, is_whole, slots, revisions, packed = values
        count = len(slots)
        numbers = struct.unpack(f"<{4 * count}d{count}q", packed)
        columns = (numbers[start * count : (start + 1) * count] for start in range(5))
        rows = dict(zip(slots, zip(revisions, *columns, strict=True), strict=True))
        return cls(date.fromisoformat(day), version, is_whole, rows)


@dataclass(frozen=True)
class Seen:
    """What an evaluation saw of a symbol.

    ``before`` is the id of the evaluation whose state it began with, or None without one. ``is_written`` is whether it
    had a new state to write. ``splits`` are the ratios by ex-date up to the newest session, or None if they were those
    of the state. ``feed`` holds the first missing bar (UTC) and the minutes of the feed's alert, by the id of the
    silence that it replaces. ``others`` is None unless this is a comparison: then it holds, by the name in the rules,
    the present symbol and the id of the evaluation whose state was compared.
    """

    symbol: str
    before: str | None
    is_written: bool
    sessions: Sequence[SeenSession] = ()
    splits: Mapping[date, float] | None = None
    feed: Mapping[str, tuple[datetime, float]] = field(default_factory=dict)
    others: Mapping[str, tuple[str, str]] | None = None

    def packed(self) -> list[Any]:
        """Return this for the journal."""
        splits = None if self.splits is None else [[day.isoformat(), ratio] for day, ratio in self.splits.items()]
        sessions = [item.packed() for item in self.sessions]
        feed = [[silence, *values] for silence, values in self.feed.items()]
        others = None if self.others is None else [[name, *state] for name, state in self.others.items()]
        return [self.symbol, self.before, self.is_written, sessions, splits, feed, others]

    @classmethod
    def unpacked(cls, values: Sequence[Any]) -> Seen:
        """Return what the journal holds."""
        symbol, before, is_written, sessions, splits, feed, others = values
        return cls(
            symbol,
            before,
            is_written,
            [SeenSession.unpacked(item) for item in sessions],
            None if splits is None else {date.fromisoformat(day): ratio for day, ratio in splits},
            {silence: (start.replace(tzinfo=UTC), minutes) for silence, start, minutes in feed},
            None if others is None else {name: (symbol, evaluation) for name, symbol, evaluation in others},
        )


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of some symbols.

    ``now`` is its moment on the market's clock and ``at`` that of the wall clock, both UTC. ``rules`` identifies the
    rules. ``quiet`` are the symbols without news, if they were more than half of the tick's ``asked`` symbols.
    """

    id: str
    at: datetime
    now: datetime
    rules: str
    seen: Sequence[Seen]
    quiet: Sequence[str] = ()
    asked: int = 0


class EvaluationJournal:
    """The collection ``alert_evaluations``. A document is an evaluation, or a part of a large one."""

    def __init__(self, database: Database[Document]) -> None:
        self._evaluations = database["alert_evaluations"]

    def ensure(self) -> None:
        """Create the index that is missing."""
        with mongo_errors("create its collections and indexes"):
            self._evaluations.create_index("at", expireAfterSeconds=int(EXPIRES_AFTER.total_seconds()))

    def add(self, evaluation: Evaluation) -> None:
        """Record an evaluation."""
        common = {
            "evaluation": evaluation.id,
            "at": evaluation.at,
            "now": evaluation.now,
            "rules": evaluation.rules,
            **({"quiet": list(evaluation.quiet), "asked": evaluation.asked} if evaluation.quiet else {}),
        }
        with mongo_errors("record what the alerts were evaluated on"):
            self._evaluations.insert_many(
                {"_id": f"{evaluation.id}.{number:03}", **common, "seen": zlib.compress(part, level=1)}
                for number, part in enumerate(_parts(evaluation.seen))
            )

    def evaluations(self) -> Iterator[Evaluation]:
        """Yield all evaluations. Each comes after those that it names, and a large one in parts with the same id."""
        with mongo_errors("read what the alerts were evaluated on"):
            for item in self._evaluations.find(sort=[("_id", 1)]):
                seen = bson.decode(zlib.decompress(item["seen"]))["seen"]
                yield Evaluation(
                    item["evaluation"],
                    item["at"],
                    item["now"],
                    item["rules"],
                    [Seen.unpacked(values) for values in seen],
                    item.get("quiet", ()),
                    item.get("asked", 0),
                )


def _parts(seen: Iterable[Seen]) -> Iterator[bytes]:
    """Yield what an evaluation saw as BSON, in parts of about ``PART_BYTES``."""
    part: list[list[Any]] = []
    size = 0
    for item in seen:
        packed = item.packed()
        part.append(packed)
        size += 100 + sum(50 + len(values[-1]) for values in packed[3])
        if size > PART_BYTES:
            yield bson.encode({"seen": part})
            part, size = [], 0
    if part:
        yield bson.encode({"seen": part})


def _values(bars: SessionBars) -> tuple[list[float], list[float], list[float], list[float], list[int]]:
    return bars.open, bars.high, bars.low, bars.close, bars.volume


def _news(bars: SessionBars, slots: bytes, old: EvaluatedSession) -> Sequence[int] | None:
    """Return the places of the bars that are new or revised since a session was evaluated.

    Return None if that session was another document, with other values under the same revision: its symbol changed, or
    it expired and was fetched again.
    """
    count, revisions = len(old.slots), bytes(number & 255 for number in bars.revision)
    closes, volumes = old.all_closes(), old.column("volume")
    begin = (slots[:count], revisions[:count], tuple(bars.close[:count]), tuple(bars.volume[:count]))
    if begin == (old.slots, old.revisions, closes, volumes):
        return range(count, len(slots))
    known = dict(zip(old.slots, zip(old.revisions, closes, volumes, strict=True), strict=True))
    news = []
    for at, slot in enumerate(slots):
        before = known.get(slot)
        if before is None or before[0] != revisions[at]:
            news.append(at)
        elif before[1:] != (bars.close[at], bars.volume[at]):
            return None
    return news


def next_id(states: Iterable[SymbolState], now: datetime) -> str:
    """Return the id of an evaluation at ``now`` (wall clock, UTC). It sorts after those that wrote the states."""
    before = max((state.evaluation for state in states if state.evaluation), default=None)
    if before:
        # The clocks of two hosts differ.
        written = datetime.strptime(before.split("-")[0], TIME).replace(tzinfo=UTC)
        now = max(now, written + timedelta(microseconds=1))
    return f"{now:{TIME}}-{secrets.token_hex(4)}"


def rules_id(book: RuleBook) -> str:
    """Return what identifies the rules: a hash of their values."""
    rules = {ALL: book.all, **book.with_own_values}
    values = {symbol: [rule.model_dump(mode="json") for rule in found] for symbol, found in rules.items()}
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def seen_by(
    state: SymbolState,
    after: SymbolState,
    sessions: Iterable[StoredSession],
    feed: Mapping[str, tuple[datetime, float]],
) -> Seen:
    """Return what an evaluation of a symbol saw, that began with ``state`` and led to ``after``.

    Sessions that are older than the state's are left out, because the evaluation ignores them.
    """
    versions = {day: item.version for day, item in state.sessions.items()}
    found = []
    for stored in sorted(sessions, key=lambda item: item.bars.session_date):
        day = stored.bars.session_date
        if versions.get(day, 0) <= stored.version:
            versions[day] = stored.version
            found.append(SeenSession.of(stored, state))
    splits = None if after.splits == state.splits else after.splits
    return Seen(state.symbol, _written_by(state), after != state, found, splits, feed)


def compared_with(state: SymbolState, others: Mapping[str, SymbolState]) -> Seen:
    """Return what a comparison saw of a symbol: its state, and by the name in the rules those of other symbols."""
    named = {name: (other.symbol, other.evaluation or UNRECORDED) for name, other in others.items()}
    return Seen(state.symbol, _written_by(state), True, others=named)


def _written_by(state: SymbolState) -> str | None:
    return state.evaluation or (UNRECORDED if state.version else None)
