"""The sessions of the New York Stock Exchange (XNYS).

Opens and closes come from a table in the package: sessions_xnys.csv, generated from exchange_calendars by
tools/make_sessions.py. Fixed hours would be wrong on half days and after changes of daylight saving time.
All datetimes here are aware and in UTC. A session_date is the exchange-local calendar day.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

from barflow.errors import BadInputError

NEW_YORK = ZoneInfo("America/New_York")
BAR = timedelta(minutes=5)
# A moment as it is written, in messages.
MOMENT = "2026-11-24T15:00Z or 2026-11-24T10:00-05:00"
# How long after the close a tick still looks for the last bars: the slowest schedule plus the delay of a call.
SETTLING = timedelta(minutes=35)
# How many bars' opens are cached by their text, about 200 bytes each.
MAX_CACHED_SLOTS = 50_000


@dataclass(frozen=True)
class Session:
    """One trading day: ``session_date`` (exchange-local), and ``opens`` and ``closes`` (UTC, half-open range)."""

    session_date: date
    opens: datetime
    closes: datetime

    @property
    def expected_bars(self) -> int:
        """Return how many 5-minute bars a complete session has: 78, or 42 on a half day."""
        return (self.closes - self.opens) // BAR

    @property
    def month(self) -> str:
        """Return the exchange-local month, as in the lake's partition: ``2025-07``."""
        return f"{self.session_date:%Y-%m}"

    @cached_property
    def slots(self) -> tuple[datetime, ...]:
        """Return the open of every 5-minute bar of the session, in order (UTC)."""
        return tuple(self.opens + BAR * n for n in range(self.expected_bars))

    @cached_property
    def slot_by_text(self) -> dict[str, datetime]:
        """Return the slots by the text that Twelve Data sends with ``timezone=UTC``: ``2025-07-02 13:30:00``."""
        return {f"{slot:%Y-%m-%d %H:%M:%S}": slot for slot in self.slots}

    def bucket_start(self, ts: datetime, minutes: int) -> datetime:
        """Return the open of the bucket that holds ``ts``. Buckets of ``minutes`` count from the session's open."""
        width = timedelta(minutes=minutes)
        return self.opens + ((ts - self.opens) // width) * width


@lru_cache(maxsize=1)
def _table() -> dict[date, tuple[str, str]]:
    text = resources.files(__package__).joinpath("sessions_xnys.csv").read_text()
    rows = (line.split(",") for line in text.splitlines()[1:])
    return {date.fromisoformat(day): (opens, closes) for day, opens, closes in rows}


@lru_cache(maxsize=1)
def _days() -> list[date]:
    return list(_table())


@lru_cache(maxsize=4096)
def session(day: date) -> Session | None:
    """Return the session of an exchange-local day, or None when the exchange is closed.

    Raises BadInputError outside the years that the table covers, since a guess could be wrong without a sign of it.
    """
    days = _days()
    if not days[0].year <= day.year <= days[-1].year:
        raise BadInputError(
            f"no exchange calendar for {day}: the table covers {days[0].year} to {days[-1].year}. "
            "Choose dates within it, or extend it with tools/make_sessions.py."
        )
    hours = _table().get(day)
    if hours is None:
        return None
    opens, closes = (datetime.fromisoformat(f"{day}T{text}:00+00:00") for text in hours)
    return Session(day, opens, closes)


class _SlotCache(dict[str, datetime]):
    """The opens of bars by their text. A session is added when one of its bars is first looked up."""

    def __missing__(self, text: str) -> datetime:
        traded = session(date.fromisoformat(text[:10]))
        if traded is None or text not in traded.slot_by_text:
            raise KeyError(text)
        if len(self) >= MAX_CACHED_SLOTS:
            self.clear()
        self.update(traded.slot_by_text)
        return self[text]


_SLOTS = _SlotCache()


def parse_slots(texts: Iterable[str]) -> list[datetime]:
    """Return the bars' opens (UTC) for Twelve Data's texts, such as ``2025-07-02 13:30:00``.

    Raises KeyError, TypeError, ValueError or BadInputError when a text is not the open of a session's bar.
    """
    return [*map(_SLOTS.__getitem__, texts)]


def parse_slot(text: Any) -> datetime | None:
    """Return the bar's open (UTC) for Twelve Data's text, or None when it is not the open of a session's bar."""
    try:
        return _SLOTS[text]
    except (KeyError, TypeError, ValueError, BadInputError):  # BadInputError: a year outside the calendar
        return None


def sessions_between(first: date, last: date) -> list[Session]:
    """Return every session from ``first`` to ``last``, both included, in order.

    Raises BadInputError outside the years that the table covers.
    """
    session(first), session(last)
    days = _days()
    chosen = days[bisect.bisect_left(days, first) : bisect.bisect_right(days, last)]
    return [found for day in chosen if (found := session(day))]


def last_sessions(now: datetime, count: int) -> list[Session]:
    """Return the newest ``count`` sessions that have opened by ``now`` (UTC), oldest first.

    Raises BadInputError outside the years that the table covers.
    """
    today = new_york(now).date()
    session(today)
    days = _days()
    end = bisect.bisect_right(days, today)
    newest = session(days[end - 1]) if end else None
    if newest is not None and newest.opens > now:
        end -= 1
    return [found for day in days[max(0, end - count) : end] if (found := session(day))]


def previous_session(day: date, back: int = 1) -> Session | None:
    """Return the session ``back`` sessions before ``day``, or None before the table. ``day`` need not be a session."""
    days = _days()
    index = bisect.bisect_left(days, day) - back
    return session(days[index]) if index >= 0 else None


def next_session(day: date) -> Session | None:
    """Return the first session after ``day``, or None after the table. ``day`` need not be a session."""
    days = _days()
    index = bisect.bisect_right(days, day)
    return session(days[index]) if index < len(days) else None


def session_at(now: datetime) -> Session | None:
    """Return the session that is open at ``now`` (UTC), or None when the market is closed."""
    found = session(new_york(now).date())
    return found if found is not None and found.opens <= now < found.closes else None


def bars_due(now: datetime) -> bool:
    """Return whether a tick at ``now`` (UTC) can find new bars.

    It can from the first bar's close until ``SETTLING`` after the session's close.
    """
    found = session(new_york(now).date())
    return found is not None and found.opens + BAR <= now < found.closes + SETTLING


def new_york(moment: datetime) -> datetime:
    """Return a moment in the exchange's time zone. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"naive datetime {moment}: a time zone is needed")
    return moment.astimezone(NEW_YORK)


def parse_moment(moment: str | datetime) -> datetime:
    """Return a moment in UTC. Raise BadInputError for a text that is no time, and for a time without an offset."""
    try:
        found = moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise BadInputError(f"{moment!r} is not a moment. Write one such as {MOMENT}.") from None
    raise BadInputError(f"the moment {moment} has no offset from UTC. Write it such as {MOMENT}.")


def utc_now() -> datetime:
    """Return the current time in UTC. It is the default of every ``clock`` argument."""
    return datetime.now(UTC)
