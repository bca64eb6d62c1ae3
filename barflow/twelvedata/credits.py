"""API credits by clock minute and by UTC day, as far as one process can know them.

Pure: every moment is passed in, aware and in UTC. The client spends its credits by these rules, and the backfill
planner simulates its calls with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

MINUTE = timedelta(minutes=1)
# Twelve Data's clock may be a little behind ours, so its minute is assumed to begin this much later.
CLOCK_SKEW = timedelta(seconds=1)


@dataclass
class Credits:
    """The budget of one key: ``per_minute`` for each clock minute, ``per_day`` (None: no cap) for each UTC day.

    A failed call counts as spent, because Twelve Data may have counted it.
    """

    per_minute: int
    per_day: int | None = None
    _minute: datetime | None = None
    _spent: int = 0  # in that minute
    _day: date | None = None
    _spent_today: int = 0
    _day_refused: bool = False

    def left(self, now: datetime) -> int:
        """Return how many credits may be spent at ``now``."""
        if self.day_is_spent(now):
            return 0
        left = self.per_minute - (self._spent if _minute_of(now) == self._minute else 0)
        if self.per_day is not None:
            left = min(left, self.per_day - (self._spent_today if now.date() == self._day else 0))
        return max(0, left)

    def day_is_spent(self, now: datetime, cost: int = 1) -> bool:
        """Return whether fewer than ``cost`` are left until the next UTC day, by our count or Twelve Data's refusal."""
        same_day = now.date() == self._day
        spent = self._spent_today if same_day else 0
        return (self._day_refused and same_day) or (self.per_day is not None and spent + cost > self.per_day)

    def allow(self, cost: int) -> bool:
        """Return whether the plan's limits ever allow a call of ``cost`` credits."""
        return cost <= self.per_minute and (self.per_day is None or cost <= self.per_day)

    def resume_at(self, now: datetime, cost: int = 1) -> datetime:
        """Return when ``cost`` credits may be left again: at the next clock minute, or on the next UTC day."""
        if self.day_is_spent(now, cost):
            return datetime.combine(now.date() + timedelta(days=1), time(), UTC) + CLOCK_SKEW
        return _minute_of(now) + MINUTE + CLOCK_SKEW

    def spend(self, count: int, now: datetime) -> None:
        """Count a call of ``count`` credits at ``now``."""
        self._forget_past(now)
        self._spent += count
        self._spent_today += count

    def limit_to(self, left: int, now: datetime) -> None:
        """Lower the credits of this minute to ``left``, the vendor's count. It is lower when others use the key."""
        self._forget_past(now)
        self._spent = max(self._spent, self.per_minute - left)

    def refused_for_minute(self, now: datetime, limit: int | None) -> None:
        """Record a refusal until the next minute. ``limit`` is the plan's limit where Twelve Data named it."""
        self._forget_past(now)
        if limit:
            self.per_minute = min(self.per_minute, limit)
        self._spent = self.per_minute

    def refused_for_day(self, now: datetime) -> None:
        """Record a refusal until the next UTC day."""
        self._forget_past(now)
        self._day_refused = True

    def _forget_past(self, now: datetime) -> None:
        """Reset the counts of a minute or a day that is over."""
        if now.date() != self._day:
            self._day, self._spent_today, self._day_refused = now.date(), 0, False
        if _minute_of(now) != self._minute:
            self._minute, self._spent = _minute_of(now), 0


def _minute_of(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0)
