"""The bar that a moment names: parse the text of a time, and find the slot of its session. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from barflow.errors import BadInputError
from barflow.market.sessions import BAR, NEW_YORK, Session, new_york, next_session, previous_session, session

EXAMPLE = 'such as "2026-11-24 10:35" in New York time, or 2026-11-24T15:35Z'


@dataclass(frozen=True)
class Slot:
    """The place of a bar: its session, and its open (UTC)."""

    session: Session
    ts: datetime

    @property
    def day(self) -> date:
        """Return the session's exchange-local day."""
        return self.session.session_date

    @property
    def text(self) -> str:
        """Return the open as Twelve Data writes it with ``timezone=UTC``: ``2025-07-02 13:30:00``."""
        return f"{self.ts:%Y-%m-%d %H:%M:%S}"

    @property
    def label(self) -> str:
        """Return the open in both time zones, for messages."""
        return f"{new_york(self.ts):%Y-%m-%d %H:%M} New York ({self.ts:%H:%M} UTC)"


def parse_time(text: str) -> datetime:
    """Return the moment (UTC) of an ISO text. Without an offset it is New York time. Raise BadInputError otherwise."""
    given = text.strip()
    try:
        moment = datetime.fromisoformat(given)
        date_only = len(given) <= len("2026-11-24")
    except ValueError:
        date_only = True
    if date_only:
        raise BadInputError(f"{given[:40]!a} is not a date and a time: give the open of a bar, {EXAMPLE}")
    try:
        found = (moment if moment.tzinfo else moment.replace(tzinfo=NEW_YORK)).astimezone(UTC)
        new_york(found)  # the first and the last day of all years have no time in another zone
        return found
    except OverflowError:
        raise BadInputError(f"{given[:40]} is outside of the calendar: give the open of a bar, {EXAMPLE}") from None


def slot_at(moment: datetime) -> Slot:
    """Return the slot that contains a moment (UTC).

    Raises BadInputError for a moment outside of every session, with the nearest bars.
    """
    local = new_york(moment)
    found = session(local.date())
    if found is None:
        raise BadInputError(f"{local:%Y-%m-%d} has no session of the New York Stock Exchange. {_near(local.date())}")
    if not found.opens <= moment < found.closes:
        first, last = (f"{new_york(ts):%H:%M}" for ts in (found.slots[0], found.slots[-1]))
        raise BadInputError(
            f"{local:%Y-%m-%d %H:%M} New York is outside of the session. Its bars open from {first} to {last} New York."
        )
    return Slot(found, found.bucket_start(moment, BAR // timedelta(minutes=1)))


def _near(day: date) -> str:
    """Return a sentence with the last bar before a day and the first one after it."""
    before = previous_session(day)
    after = next_session(day)
    bars = [item for item in (before and before.slots[-1], after and after.slots[0]) if item]
    return "The bars next to it open at " + " and ".join(f"{new_york(ts):%Y-%m-%d %H:%M}" for ts in bars) + " New York."
