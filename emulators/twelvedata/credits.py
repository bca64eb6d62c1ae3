"""API credits of a key: one per symbol and call, limited by clock minute and by UTC day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from emulators.twelvedata import errors

# The limit that a key without limits reports, so that headers and /api_usage keep their shape.
UNLIMITED = 1_000_000


@dataclass
class Credits:
    """The credit meter of one key. ``clock`` returns the time in UTC. A limit of None is no limit."""

    clock: Callable[[], datetime]
    per_minute: int | None = None
    per_day: int | None = None
    used_in_minute: int = 0
    used_in_day: int = 0
    _minute: datetime | None = None

    def roll(self) -> None:
        """Reset the counts of a minute and of a day that have ended."""
        minute = self.clock().replace(second=0, microsecond=0)
        if minute != self._minute:
            if self._minute is None or minute.date() != self._minute.date():
                self.used_in_day = 0
            self.used_in_minute = 0
            self._minute = minute

    def take(self, cost: int, *, in_part: bool, refused_count: bool) -> int:
        """Use ``cost`` credits, or with ``in_part`` as many as are left. Return the number used.

        Raise Refusal (429) if too few are left, or with ``in_part`` none. With ``refused_count`` a refused call uses
        its credits too.
        """
        self.roll()
        left_today = cost if self.per_day is None else self.per_day - self.used_in_day
        left_now = cost if self.per_minute is None else self.per_minute - self.used_in_minute
        granted = min(cost, left_today, left_now)
        if granted < cost and not (in_part and granted > 0):
            refusal = self.refusal(cost)
            if refused_count:
                self._count(cost)
            raise refusal
        self._count(granted)
        return granted

    def refusal(self, cost: int) -> errors.Refusal:
        """Return the refusal of ``cost`` more credits; the day's limit comes before the minute's."""
        if self.per_day is not None and self.used_in_day + cost > self.per_day:
            return errors.day_credits_spent(self.used_in_day + cost, self.per_day)
        return errors.minute_credits_spent(self.used_in_minute + cost, self.per_minute or 0)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an answer: credits used and left in the current minute."""
        left = max(0, (self.per_minute or UNLIMITED) - self.used_in_minute)
        return {"api-credits-used": str(self.used_in_minute), "api-credits-left": str(left)}

    def usage(self) -> dict[str, object]:
        """Return the body of /api_usage."""
        usage: dict[str, object] = {
            "timestamp": f"{self.clock():%Y-%m-%d %H:%M:%S}",
            "current_usage": self.used_in_minute,
            "plan_limit": self.per_minute or UNLIMITED,
        }
        if self.per_day is not None:
            usage |= {"daily_usage": self.used_in_day, "plan_daily_limit": self.per_day}
        return usage | {"plan_category": "basic" if self.per_day is not None else "pro"}

    def _count(self, cost: int) -> None:
        self.used_in_minute += cost
        self.used_in_day += cost
