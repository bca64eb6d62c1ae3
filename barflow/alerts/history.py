"""What is remembered of a symbol's past sessions, so that a tick need not read them again?

A session is kept as packed columns, half the size of its bars and read at once, with the version and revisions that
were judged: what of a session is news is told by comparing the two.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

from barflow.market.bars import SessionBars
from barflow.market.sessions import session
from barflow.staging.sessions import StoredSession

CLOSE = struct.Struct("<d")
VOLUME = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Seen:
    """One judged session. ``slots`` and ``revisions`` hold a byte a bar (a revision's last 8 bits), ``closes`` a
    little-endian double in dollars, ``volumes`` a 64-bit integer in shares."""

    session_date: date
    version: int
    high: float
    low: float
    slots: bytes
    revisions: bytes
    closes: bytes
    volumes: bytes

    @classmethod
    def of(cls, stored: StoredSession) -> Seen:
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
        )

    @property
    def last_close(self) -> float:
        return float(CLOSE.unpack_from(self.closes, len(self.closes) - CLOSE.size)[0])

    def all_closes(self) -> tuple[float, ...]:
        return struct.unpack(f"<{len(self.slots)}d", self.closes)

    def volume_at(self, slot: int) -> int | None:
        """Shares of the bar in that slot (0 opens with the session), None where there was no bar."""
        place = self.slots.find(slot)
        return None if place < 0 else int(VOLUME.unpack_from(self.volumes, place * VOLUME.size)[0])

    def fresh(self, judged: Seen | None) -> list[int]:
        """The places of the bars that ``judged`` does not have, or not in this revision."""
        if judged is None:
            return [*range(len(self.slots))]
        known = dict(zip(judged.slots, judged.revisions, strict=True))
        return [
            place
            for place, (slot, revision) in enumerate(zip(self.slots, self.revisions, strict=True))
            if known.get(slot) != revision
        ]

    def summary(self) -> Seen:
        """The same with its last bar only: for the sessions of which the rules need no more."""
        if len(self.slots) == 1:
            return self
        return replace(
            self,
            slots=self.slots[-1:],
            revisions=self.revisions[-1:],
            closes=self.closes[-CLOSE.size :],
            volumes=self.volumes[-VOLUME.size :],
        )

    def to_document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "session_date"}

    @classmethod
    def from_document(cls, day: str, document: dict[str, Any]) -> Seen:
        return cls(session_date=date.fromisoformat(day), **document)


def slot_numbers(bars: SessionBars) -> bytes:
    """The number of each bar's slot in its session, 0 for the one that opens it."""
    traded = session(bars.session_date)
    assert traded is not None, "only sessions are stored"
    if bars.ts == [*traded.slots[: len(bars)]]:
        return bytes(range(len(bars)))
    numbers = {slot: number for number, slot in enumerate(traded.slots)}
    return bytes(numbers[ts] for ts in bars.ts)


@dataclass(frozen=True)
class SymbolState:
    """What the evaluation carries from tick to tick for one symbol.

    Whether a rule held at the bar before follows from the bars; kept are what was judged, the bar with which each
    rule last fired (UTC), and ``horizon``: sessions before it are history, whenever their bars arrive. ``history``
    and ``detail`` say for how many sessions back it is filled. ``version`` is its lock in the store.
    """

    symbol: str
    horizon: date
    history: int = -1
    detail: int = -1
    sessions: dict[date, Seen] = field(default_factory=dict)
    fired: dict[str, datetime] = field(default_factory=dict)
    version: int = 0


def trimmed(sessions: dict[date, Seen], history: int, detail: int) -> dict[date, Seen]:
    """The newest ``history`` sessions in order of time, all bars of the newest ``detail`` of them."""
    days = sorted(sessions)[-history:]
    return {
        day: sessions[day] if place < detail else sessions[day].summary()
        for place, day in zip(range(len(days) - 1, -1, -1), days, strict=True)
    }
