"""The protocol of a source of bars for the Twelve Data emulator.

There are two: local.synthetic (generated sessions) and barflow.market.recordings (recorded sessions). A source returns
bars as the vendor writes them. It changes no text, so that a wrong value of a recorded bar reaches the pipeline.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from barflow.market.recordings import Row

BAR = timedelta(minutes=5)


class BarSource(Protocol):
    """Bars by symbol and time. All times are aware and in UTC."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols to request by default."""
        ...

    @property
    def first(self) -> datetime:
        """A time before which no bar opens, so that a search back in time can stop there."""
        ...

    @property
    def as_of(self) -> datetime | None:
        """The end of the last bar (its open plus 5 minutes), or None if the source follows the clock."""
        ...

    @property
    def describe(self) -> str:
        """A short description for people."""
        ...

    def knows(self, symbol: str) -> bool:
        """Return whether the source has this symbol (upper case)."""
        ...

    def rows(self, symbol: str, start: datetime, end: datetime) -> list[Row]:
        """Return the bars that open in [start, end), oldest first; none for an unknown symbol."""
        ...
