"""The requests for corporate actions: the endpoints of splits and dividends, and the daily bars that show splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from barflow.market.actions import Kind

DailyAdjust = Literal["none", "splits"]
# The most rows of an answer: about twenty years of sessions.
DAILY_ROWS = 5000
LISTING_CREDITS = 20


@dataclass(frozen=True)
class Listing:
    """The request for all splits or all dividends of a symbol. Plans from Grow up include it."""

    kind: Kind
    optional: ClassVar[bool] = False
    credits: ClassVar[int] = LISTING_CREDITS

    @property
    def path(self) -> str:
        """Return the path of the endpoint."""
        return f"/{self.kind}s"

    @property
    def params(self) -> dict[str, str | int]:
        """Return the parameters. Dividends are asked for as paid: by default, later splits divide their amounts."""
        return {"range": "full", **({"adjust": "false"} if self.kind == "dividend" else {})}

    def values(self, part: Mapping[str, Any]) -> list[Any] | None:
        """Return the list of actions as received, or None if there is none."""
        found = part.get(f"{self.kind}s")
        return found if isinstance(found, list) else None


@dataclass(frozen=True)
class Daily:
    """The request for the newest daily bars of some symbols, raw or adjusted for splits. Every plan includes it."""

    adjust: DailyAdjust
    rows: int = DAILY_ROWS
    path: ClassVar[str] = "/time_series"
    optional: ClassVar[bool] = False
    credits: ClassVar[int] = 1

    @property
    def params(self) -> dict[str, str | int]:
        """Return the parameters. The dates of the bars are in the exchange's time zone."""
        return {"interval": "1day", "timezone": "Exchange", "adjust": self.adjust, "outputsize": self.rows}

    def values(self, part: Mapping[str, Any]) -> list[Any] | None:
        """Return the daily bars, or None if there is no list of them."""
        found = part.get("values")
        return found if isinstance(found, list) and isinstance(part.get("meta"), dict) else None
