"""May a call go out now? API credits by clock minute and by UTC day, as far as one process can know them.

Pure: every moment is passed in, aware and in UTC. The client spends by it, the backfill planner rehearses with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

MINUTE = timedelta(minutes=1)
# The vendor's clock may be a little behind ours: its minute is taken to begin this much later.
SKEW = timedelta(seconds=1)


@dataclass
class Credits:
    """The budget of one key: ``per_minute`` for each clock minute, ``per_day`` (None: no cap) for each UTC day.

    A call that failed counts as spent, because the vendor may have counted it.
    """

    per_minute: int
    per_day: int | None = None
    _minute: datetime | None = None
    _spent: int = 0  # in that minute
    _day: date | None = None
    _spent_today: int = 0
    _day_refused: bool = False

    def left(self, now: datetime) -> int:
        """How many credits may be spent at ``now``."""
        if self.day_is_spent(now):
            return 0
        left = self.per_minute - (self._spent if _minute_of(now) == self._minute else 0)
        if self.per_day is not None:
            left = min(left, self.per_day - (self._spent_today if now.date() == self._day else 0))
        return max(0, left)

    def day_is_spent(self, now: datetime) -> bool:
        """Whether nothing is left until the next UTC day, by our own count or because the vendor said so."""
        spent = self._day_refused or (self.per_day is not None and self._spent_today >= self.per_day)
        return spent and now.date() == self._day

    def resume_at(self, now: datetime) -> datetime:
        """When there are credits again, once none is left: in the next clock minute, or on the next UTC day."""
        if self.day_is_spent(now):
            return datetime.combine(now.date() + timedelta(days=1), time(), UTC) + SKEW
        return _minute_of(now) + MINUTE + SKEW

    def spend(self, count: int, now: datetime) -> None:
        """Counts a call for ``count`` symbols that goes out at ``now``."""
        self._roll(now)
        self._spent += count
        self._spent_today += count

    def told(self, left: int, now: datetime) -> None:
        """The vendor says what is left of this minute: fewer than we thought when others use the key as well."""
        self._roll(now)
        self._spent = max(self._spent, self.per_minute - left)

    def refused_for_minute(self, now: datetime, limit: int | None) -> None:
        """The vendor refuses until the next minute; ``limit`` is the plan's, where it named one."""
        self._roll(now)
        if limit:
            self.per_minute = min(self.per_minute, limit)
        self._spent = self.per_minute

    def refused_for_day(self, now: datetime) -> None:
        """The vendor refuses until the next UTC day."""
        self._roll(now)
        self._day_refused = True

    def _roll(self, now: datetime) -> None:
        """Forgets the minute, and the day, that are over."""
        if now.date() != self._day:
            self._day, self._spent_today, self._day_refused = now.date(), 0, False
        if _minute_of(now) != self._minute:
            self._minute, self._spent = _minute_of(now), 0


def _minute_of(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0)
