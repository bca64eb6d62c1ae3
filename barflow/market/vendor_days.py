"""The vendor's own daily bars, and how far ours may be from them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime


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
