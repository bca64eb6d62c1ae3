"""The state of a symbol's evaluation: its past sessions, so that a tick does not read them again.

A session is stored as packed columns, which are half the size of its bars and are read in one step. It includes the
version and the revisions that were evaluated, so a comparison shows which bars of a session are new or revised.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

from barflow.market.actions import Split, split_factors
from barflow.market.bars import SessionBars
from barflow.market.sessions import session
from barflow.staging.sessions import StoredSession

CLOSE = struct.Struct("<d")
VOLUME = struct.Struct("<q")
PRICES = ("open", "high", "low")


@dataclass(frozen=True, slots=True)
class EvaluatedSession:
    """One session as it was evaluated.

    ``slots`` and ``revisions`` hold one byte a bar (the last 8 bits of a revision), ``closes`` a little-endian double
    in dollars, and ``volumes`` a little-endian 64-bit integer in shares. ``prices`` holds the opens, then the highs,
    then the lows, as doubles. It is empty where no rule looks at them.
    """

    session_date: date
    version: int
    high: float
    low: float
    slots: bytes
    revisions: bytes
    closes: bytes
    volumes: bytes
    prices: bytes = b""

    @classmethod
    def of(cls, stored: StoredSession, *, prices: bool = False) -> EvaluatedSession:
        """Return the packed form of a stored session. With ``prices``, it has each bar's open, high and low."""
        bars, count = stored.bars, len(stored.bars)
        return cls(
            bars.session_date,
            stored.version,
            max(bars.high),
            min(bars.low),
            slot_numbers(bars),
            bytes(number & 255 for number in bars.revision),
            struct.pack(f"<{count}d", *bars.close),
            struct.pack(f"<{count}q", *bars.volume),
            struct.pack(f"<{3 * count}d", *bars.open, *bars.high, *bars.low) if prices else b"",
        )

    @property
    def last_close(self) -> float:
        """Return the close of the last bar, in dollars."""
        return float(CLOSE.unpack_from(self.closes, len(self.closes) - CLOSE.size)[0])

    def all_closes(self) -> tuple[float, ...]:
        """Return every bar's close, in dollars."""
        return struct.unpack(f"<{len(self.slots)}d", self.closes)

    def column(self, name: str) -> tuple[float, ...]:
        """Return every bar's open, high, low or close in dollars, or its volume in shares. Empty if not held."""
        if name == "close":
            return self.all_closes()
        count = len(self.slots)
        if name == "volume":
            return struct.unpack(f"<{count}q", self.volumes)
        if not self.prices:
            return ()
        return struct.unpack_from(f"<{count}d", self.prices, PRICES.index(name) * count * CLOSE.size)

    def volume_at(self, slot: int) -> int | None:
        """Return the shares of the bar in a slot (0 opens the session), or None if there was no bar."""
        place = self.slots.find(slot)
        return None if place < 0 else int(VOLUME.unpack_from(self.volumes, place * VOLUME.size)[0])

    def bars(self, symbol: str) -> SessionBars:
        """Return the session of a symbol as columns, revisions modulo 256. It must hold each bar's prices."""
        traded = session(self.session_date)
        assert traded is not None, "only sessions are stored"
        opened, high, low, close = ([*self.column(name)] for name in (*PRICES, "close"))
        volume = [*struct.unpack(f"<{len(self.slots)}q", self.volumes)]
        ts = [traded.slots[slot] for slot in self.slots]
        return SessionBars(symbol, self.session_date, ts, opened, high, low, close, volume, [*self.revisions])

    def changed_since(self, before: EvaluatedSession | None) -> list[int]:
        """Return the places of the bars that ``before`` does not have, or has in another revision."""
        if before is None:
            return [*range(len(self.slots))]
        known = dict(zip(before.slots, before.revisions, strict=True))
        return [
            place
            for place, (slot, revision) in enumerate(zip(self.slots, self.revisions, strict=True))
            if known.get(slot) != revision
        ]

    def summary(self) -> EvaluatedSession:
        """Return the session with only its last bar. For older sessions, the rules need no more than this."""
        if len(self.slots) == 1:
            return self.without_prices()
        return replace(
            self,
            slots=self.slots[-1:],
            revisions=self.revisions[-1:],
            closes=self.closes[-CLOSE.size :],
            volumes=self.volumes[-VOLUME.size :],
            prices=b"",
        )

    def without_prices(self) -> EvaluatedSession:
        """Return the session without each bar's open, high and low."""
        return replace(self, prices=b"") if self.prices else self

    def to_document(self) -> dict[str, Any]:
        """Return the session as MongoDB stores it, under its day."""
        document = {name: getattr(self, name) for name in self.__slots__ if name != "session_date"}
        return document if self.prices else {name: value for name, value in document.items() if name != "prices"}

    @classmethod
    def from_document(cls, day: str, document: dict[str, Any]) -> EvaluatedSession:
        """Return the session that MongoDB stored under a day."""
        return cls(session_date=date.fromisoformat(day), **document)


@dataclass(frozen=True, slots=True)
class AdjustedSession:
    """A past session in the shares of a later one: prices / ``ratio``, volumes * ``ratio``."""

    session: EvaluatedSession
    ratio: float

    @property
    def session_date(self) -> date:
        """Return the session's day."""
        return self.session.session_date

    @property
    def high(self) -> float:
        """Return the highest price, in dollars."""
        return self.session.high / self.ratio

    @property
    def low(self) -> float:
        """Return the lowest price, in dollars."""
        return self.session.low / self.ratio

    @property
    def last_close(self) -> float:
        """Return the close of the last bar, in dollars."""
        return self.session.last_close / self.ratio

    def all_closes(self) -> tuple[float, ...]:
        """Return every bar's close, in dollars."""
        return tuple(close / self.ratio for close in self.session.all_closes())

    def column(self, name: str) -> tuple[float, ...]:
        """Return every bar's open, high, low or close in dollars, or its volume in shares. Empty if not held."""
        if name == "volume":
            return tuple(shares * self.ratio for shares in self.session.column(name))
        return tuple(price / self.ratio for price in self.session.column(name))

    def volume_at(self, slot: int) -> float | None:
        """Return the shares of the bar in a slot, or None if there was no bar. They may have a fraction."""
        shares = self.session.volume_at(slot)
        return None if shares is None else shares * self.ratio


PastSession = EvaluatedSession | AdjustedSession


def in_shares_of(day: date, past: Sequence[EvaluatedSession], splits: Sequence[Split]) -> Sequence[PastSession]:
    """Return past sessions, in time order, in the shares of the session ``day``."""
    if not past or not splits:
        return past
    between = [split for split in splits if past[0].session_date < split.ex_date <= day]
    if not between:
        return past
    steps = split_factors(between, day)
    ratios = ((item, steps.at(item.session_date).volume) for item in past)
    return [item if ratio == 1.0 else AdjustedSession(item, ratio) for item, ratio in ratios]


def slot_numbers(bars: SessionBars) -> bytes:
    """Return the number of each bar's slot in its session. Slot 0 opens the session."""
    traded = session(bars.session_date)
    assert traded is not None, "only sessions are stored"
    if bars.ts == [*traded.slots[: len(bars)]]:
        return bytes(range(len(bars)))
    numbers = {slot: number for number, slot in enumerate(traded.slots)}
    return bytes(numbers[ts] for ts in bars.ts)


@dataclass(frozen=True)
class Compared:
    """The bars with which the rules that name another symbol were evaluated.

    ``bars`` holds by session three bytes for each bar that both symbols have: its slot and both revisions. ``splits``
    are those of the other symbol, the ratio by ex-date. Sessions before ``since`` never fire.
    """

    since: date
    splits: dict[date, float] = field(default_factory=dict)
    bars: dict[date, bytes] = field(default_factory=dict)

    def without(self, days: Collection[date]) -> Compared:
        """Return the same without these sessions, so that they are evaluated again."""
        return replace(self, bars={day: bars for day, bars in self.bars.items() if day not in days}) if days else self


def compared_bars(own: EvaluatedSession, other: EvaluatedSession) -> dict[int, bytes]:
    """Return the slot and both revisions of each bar that both sessions have, by its place in the first one."""
    revisions = dict(zip(other.slots, other.revisions, strict=True))
    return {
        place: bytes((slot, revision, revisions[slot]))
        for place, (slot, revision) in enumerate(zip(own.slots, own.revisions, strict=True))
        if slot in revisions
    }


@dataclass(frozen=True)
class SymbolState:
    """What the evaluation stores between ticks for one symbol.

    It holds the sessions that were evaluated, the bar at which each rule last fired (its open, UTC), and ``horizon``:
    bars of sessions before it never fire, whenever they arrive. ``history``, ``detail`` and ``prices`` are the numbers
    of sessions for which it was filled. ``splits`` are those in force at the last evaluation, the ratio by ex-date:
    when others are known, some sessions are evaluated again. Sessions are stored raw, so a split changes none of them.
    ``levels`` holds by rule the newest session when a level without ``as_of`` was first evaluated. ``compared`` holds
    by other symbol how far the rules that name it were evaluated. ``version`` is the state's optimistic lock in the
    collection. ``evaluation`` is the id of the evaluation that wrote the state, and ``outgoing`` its alerts, as
    documents of the outbox, until they are there. Whether a rule held at the bar before is not stored, since it follows
    from the bars.
    """

    symbol: str
    horizon: date
    history: int = -1
    detail: int = -1
    sessions: dict[date, EvaluatedSession] = field(default_factory=dict)
    fired: dict[str, datetime] = field(default_factory=dict)
    splits: dict[date, float] = field(default_factory=dict)
    levels: dict[str, date] = field(default_factory=dict)
    version: int = 0
    prices: int = 0
    compared: dict[str, Compared] = field(default_factory=dict)
    evaluation: str | None = None
    outgoing: tuple[dict[str, Any], ...] = ()


def trimmed(
    sessions: dict[date, EvaluatedSession], history: int, detail: int, prices: int
) -> dict[date, EvaluatedSession]:
    """Return the newest ``history`` sessions in time order.

    The newest ``detail`` are whole, the others are summaries. The newest ``prices`` have each bar's open, high and low.
    """
    days = sorted(sessions)[-history:]
    found = {}
    for place, day in zip(range(len(days) - 1, -1, -1), days, strict=True):
        item = sessions[day] if place < detail else sessions[day].summary()
        found[day] = item if place < prices else item.without_prices()
    return found
