"""The vendor's own daily bars, and how far ours may be from them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from barflow.market.sessions import Session, last_sessions

# After the close, when the vendor's daily bar has the closing auction and its first corrections.
FINAL_AFTER = timedelta(minutes=20)


@dataclass(frozen=True)
class VendorDay:
    """The vendor's daily bar of a session: raw prices (dollars), volume (shares), and the request's time (UTC)."""

    symbol: str
    session_date: date
    open: float
    high: float
    low: float
    close: float
    volume: int
    requested_at: datetime


def newest_final(now: datetime) -> Session | None:
    """Return the newest session whose daily bar is complete at ``now`` (UTC), or None before the first."""
    return next((item for item in reversed(last_sessions(now, 2)) if item.closes + FINAL_AFTER <= now), None)
