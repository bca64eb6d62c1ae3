"""Bar counts per symbol and session: what the reconciliation compares between hops."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

# A symbol and its session date, as ISO text.
SessionKey = tuple[str, str]


@dataclass
class SessionCounts:
    """What one store holds: bars per (symbol, session) and the open of the newest bar per symbol (UTC)."""

    bars: dict[SessionKey, int] = field(default_factory=dict)
    newest: dict[str, datetime] = field(default_factory=dict)

    def add(self, symbol: str, day: str, bars: int, newest: datetime) -> None:
        """Add one session, replacing its earlier count."""
        self.bars[symbol, day] = bars
        self.newest[symbol] = max(newest, self.newest.get(symbol, newest))
