"""What is a source of bars for the API emulator? Anything that answers these questions.

Two exist: local.synthetic (made-up sessions) and barflow.market.recordings (recorded ones). A source
gives bars as the vendor would write them, text untouched, so that what is wrong with a recorded bar reaches the
pipeline as it stands.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from barflow.market.recordings import Row

BAR = timedelta(minutes=5)


class BarSource(Protocol):
    """Bars by symbol and time. All moments are aware and in UTC."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols worth asking for by default."""
        ...

    @property
    def first(self) -> datetime:
        """No bar opens before this moment: where a search back in time may stop."""
        ...

    @property
    def as_of(self) -> datetime | None:
        """The moment after the last bar (its open plus 5 minutes), or None when the source follows the clock."""
        ...

    @property
    def describe(self) -> str:
        """What it holds, in a few words for a person."""
        ...

    def knows(self, symbol: str) -> bool:
        """Whether asking for this symbol (upper case) is not an error."""
        ...

    def rows(self, symbol: str, start: datetime, end: datetime) -> list[Row]:
        """The bars that open in [start, end), oldest first. Empty for a symbol it does not know."""
        ...
