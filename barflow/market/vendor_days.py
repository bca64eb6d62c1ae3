"""The vendor's daily bars, and how far ours may be from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from barflow.market.sessions import Session, last_sessions

# After the close, when the vendor's daily bar has the closing auction and its first corrections.
FINAL_AFTER = timedelta(minutes=20)
PRICES = ("open", "high", "low", "close")
# By how much a session may differ from the vendor's daily bar: a price in basis points, the volume in per cent.
Thresholds = tuple[float, float]


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


@dataclass(frozen=True)
class Comparison:
    """A complete session of ours beside the vendor's daily bar: open, high, low, close (dollars), volume (shares)."""

    symbol: str
    session_date: date
    ours: Mapping[str, float]
    theirs: Mapping[str, float]

    @property
    def bps(self) -> dict[str, float]:
        """Return by price how far ours is from the vendor's, in basis points."""
        return {name: (self.ours[name] / self.theirs[name] - 1) * 10_000 for name in PRICES}

    @property
    def worst(self) -> str:
        """Return the price that differs most."""
        return max(PRICES, key=lambda name: abs(self.bps[name]))

    @property
    def volume_pct(self) -> float | None:
        """Return how far our volume is from the vendor's, in per cent, or None if the vendor has none."""
        return (self.ours["volume"] / self.theirs["volume"] - 1) * 100 if self.theirs["volume"] else None

    def differences(self, thresholds: Thresholds) -> str:
        """Return as text what differs by more than these thresholds, empty if nothing does."""
        bps, volume_pct = thresholds
        parts = []
        if abs(self.bps[self.worst]) > bps:
            parts.append(f"{self.worst} differs by {abs(self.bps[self.worst]):.0f} bps from {self._values(self.worst)}")
        if self.volume_pct is not None and abs(self.volume_pct) > volume_pct:
            parts.append(f"volume differs by {abs(self.volume_pct):.0f} % from {self._values('volume')}")
        return f"{self.session_date}: {'; '.join(parts)}" if parts else ""

    def _values(self, name: str) -> str:
        return f"Twelve Data's daily bar: ours {self.ours[name]:.9g}, theirs {self.theirs[name]:.9g}"


def differing(compared: Iterable[Comparison], thresholds: Thresholds) -> list[str]:
    """Return a line for each session that differs from the vendor's daily bar by more than a threshold."""
    return [f"{item.symbol} {text}" for item in compared if (text := item.differences(thresholds))]
