"""Daily bars of the emulator, aggregated from the source's 5-minute bars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from emulators.twelvedata.actions import ScriptedSplit, later_ratio
from emulators.twelvedata.bar_source import BarSource

NEW_YORK = ZoneInfo("America/New_York")
DECIMALS = 5
Numbers = tuple[float, float, float, float, int]  # open, high, low, close, volume


class DailyBars:
    """The daily bars of a source. Complete days are cached."""

    def __init__(self, source: BarSource) -> None:
        self.source = source
        self._complete = lru_cache(maxsize=50_000)(self._day)

    def select(
        self, symbol: str, limit: int, now: datetime, listed: datetime | None, splits: list[ScriptedSplit] | None
    ) -> list[dict[str, str]]:
        """Return the newest ``limit`` daily bars by ``now`` (UTC), newest first, adjusted for ``splits`` if given."""
        start = max(listed or self.source.first, self.source.first).astimezone(NEW_YORK).date()
        today = now.astimezone(NEW_YORK).date()
        found: list[dict[str, str]] = []
        day = today
        while day >= start and len(found) < limit:
            numbers = self._complete(symbol, day) if day < today else self._day(symbol, day, now)
            if numbers is not None:
                found.append(_written(day, numbers, later_ratio(splits or (), day, today)))
            day -= timedelta(days=1)
        return found

    def _day(self, symbol: str, day: date, now: datetime | None = None) -> Numbers | None:
        """Return the bar of a day, of the 5-minute bars that opened by ``now``, or None without any."""
        midnight = datetime.combine(day, time(), NEW_YORK)
        rows = self.source.rows(symbol, midnight, midnight + timedelta(days=1))
        numbers = [found for ts, *texts in rows if (now is None or ts <= now) and (found := _numbers(texts))]
        if not numbers:
            return None
        opens, highs, lows, closes, volumes = zip(*numbers, strict=True)
        return opens[0], max(highs), min(lows), closes[-1], sum(volumes)


def _numbers(texts: Sequence[str | None]) -> Numbers | None:
    """Return the numbers of a 5-minute bar, or None for a recorded one with another text."""
    try:
        opened, high, low, close = (float(str(text)) for text in texts[:4])
        return opened, high, low, close, int(str(texts[4]))
    except ValueError:
        return None


def _written(day: date, numbers: Numbers, ratio: float) -> dict[str, str]:
    prices = [f"{price / ratio:.{DECIMALS}f}" for price in numbers[:4]]
    values = dict(zip(("open", "high", "low", "close"), prices, strict=True))
    return {"datetime": day.isoformat(), **values, "volume": str(round(numbers[4] * ratio))}
