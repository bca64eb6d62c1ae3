"""Which values answer a query, and in which bytes? Days of bars are encoded once and kept.

The unit of the cache is one symbol's UTC day in one time zone: an answer is then mostly a join of ready bytes.
Corrections, the forming bar, ``dp`` and faults are applied on top and never kept.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import orjson

from barflow.market.recordings import Row
from emulators.twelvedata.bar_source import BAR, BarSource
from emulators.twelvedata.query import Query

INSTANT = timedelta(microseconds=1)
PRICES = ("open", "high", "low", "close")

# A symbol's corrected bars: UTC day -> the bar's open (UTC) -> new values by name.
Corrections = dict[date, dict[datetime, dict[str, str]]]
NONE: Corrections = {}


@dataclass(frozen=True)
class Day:
    """One symbol's bars of a UTC day, oldest first: their opens (UTC), and each as a JSON object."""

    opens: tuple[datetime, ...]
    encoded: tuple[bytes, ...]


class Values:
    """The encoded bars of a source."""

    def __init__(self, source: BarSource, cached_days: int = 20_000):
        """``cached_days``: how many symbol-days are kept in memory, weekends included, about 15 kB a session."""
        self.source = source
        self._day = lru_cache(maxsize=cached_days)(self._encode_day)

    def select(
        self,
        symbol: str,
        query: Query,
        now: datetime,
        *,
        end_inclusive: bool,
        forming_bar: bool,
        corrections: Corrections = NONE,
    ) -> list[bytes]:
        """The newest ``query.limit`` bars in its range that have opened by ``now``, each as JSON, in its order."""
        end = now + INSTANT if forming_bar else now - BAR + INSTANT
        if query.end is not None:
            end = min(end, query.end if not end_inclusive or query.end >= end else query.end + INSTANT)
        start = max(query.start or self.source.first, self.source.first)
        newest_first: list[bytes] = []
        day, first_day = end.date(), start.date()
        while day >= first_day and len(newest_first) < query.limit:
            newest_first.extend(self._slice(symbol, day, query, start, end, now, corrections))
            day -= timedelta(days=1)
        chosen = newest_first[: query.limit]
        if query.decimals is not None:
            chosen = [_rounded(bar, query.decimals) for bar in chosen]
        return chosen if query.newest_first else chosen[::-1]

    def _slice(
        self,
        symbol: str,
        day: date,
        query: Query,
        start: datetime,
        end: datetime,
        now: datetime,
        corrections: Corrections,
    ) -> list[bytes]:
        """The bars of one day that open in [start, end), newest first."""
        found = self._day(symbol, day, query.zone)
        low, high = bisect.bisect_left(found.opens, start), bisect.bisect_left(found.opens, end)
        bars = list(found.encoded[low:high])
        for ts, changes in corrections.get(day, {}).items():
            for place in range(bisect.bisect_left(found.opens, ts), bisect.bisect_right(found.opens, ts)):
                if low <= place < high:
                    bars[place - low] = orjson.dumps({**orjson.loads(bars[place - low]), **changes})
        for place in range(max(low, bisect.bisect_right(found.opens, now - BAR)), high):
            bars[place - low] = _as_formed_by(now, found.opens[place], bars[place - low])
        bars.reverse()
        return bars

    def _encode_day(self, symbol: str, day: date, zone: ZoneInfo) -> Day:
        midnight = datetime.combine(day, time(), UTC)
        rows = self.source.rows(symbol, midnight, midnight + timedelta(days=1))
        return Day(tuple(row[0] for row in rows), _encode(rows, zone))


def _encode(rows: list[Row], zone: ZoneInfo) -> tuple[bytes, ...]:
    """Each bar as a JSON object. Encoded together and then parted: ten times faster than one by one."""
    values = [
        {"datetime": _wall(ts, zone), "open": o, "high": h, "low": low, "close": c, "volume": v}
        for ts, o, h, low, c, v in rows
    ]
    parts = orjson.dumps(values)[2:-2].split(b"},{")
    if len(parts) == len(values):
        return tuple(b"{%b}" % part for part in parts)
    return tuple(orjson.dumps(value) for value in values)  # no bars, or a recorded text with `},{` in it


def _wall(ts: datetime, zone: ZoneInfo) -> str:
    return ts.astimezone(zone).replace(tzinfo=None).isoformat(" ", "seconds")


def _as_formed_by(now: datetime, opened: datetime, bar: bytes) -> bytes:
    """What a bar looks like before it is over: its first price only, and the volume so far."""
    values = orjson.loads(bar)
    values |= dict.fromkeys(PRICES, values["open"])
    volume = values["volume"]
    if isinstance(volume, str) and volume.isdigit():
        values["volume"] = str(int(int(volume) * ((now - opened) / BAR)))
    return orjson.dumps(values)


def _rounded(bar: bytes, decimals: int) -> bytes:
    values = orjson.loads(bar)
    for name in PRICES:
        try:
            values[name] = f"{float(values[name]):.{decimals}f}"
        except (TypeError, ValueError):
            continue
    return orjson.dumps(values)
