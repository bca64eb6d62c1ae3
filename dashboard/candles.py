"""The candles of a chart: those of the warehouse, and those of staged sessions that may be newer.

Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import NamedTuple

from barflow.errors import BadInputError
from barflow.market.bars import SessionBars
from barflow.market.sessions import BAR, session
from dashboard.models import Interval

# Minutes of a bucket. A session is shorter than a day, so its bucket of one day is the whole session.
MINUTES: dict[Interval, int] = {"5min": 5, "30min": 30, "1h": 60, "1d": 1440}


class Candle(NamedTuple):
    """One bucket that opens at ``time`` (UTC): prices in dollars, volume in shares."""

    time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float | None
    complete: bool
    session_date: date


def session_candles(bars: SessionBars, minutes: int) -> list[Candle]:
    """Return the candles of a staged session, with buckets that count from its open.

    The last candle covers the 5-minute bars so far. The rules are those of the warehouse:
    vwap = sum(typical * volume) / sum(volume), and a candle is complete when it holds all bars that the calendar
    expects in its bucket. Raises BadInputError for bars of a day without a session.
    """
    traded = session(bars.session_date)
    if traded is None:
        raise BadInputError(
            f"Cannot draw {bars.symbol} on {bars.session_date}: the exchange has no session on that day. "
            "Nothing was changed. Run `barflow status` to see which sessions are stored."
        )
    starts = [traded.bucket_start(ts, minutes) for ts in bars.ts]
    found: list[Candle] = []
    first = 0
    for place in range(1, len(starts) + 1):
        if place < len(starts) and starts[place] == starts[first]:
            continue
        part = slice(first, place)
        high, low, close, volume = bars.high[part], bars.low[part], bars.close[part], bars.volume[part]
        total = sum(volume)
        turnover = sum((h + w + c) / 3 * v for h, w, c, v in zip(high, low, close, volume, strict=True))
        expected = min((traded.closes - starts[first]) // BAR, minutes // 5)
        found.append(
            Candle(
                starts[first],
                bars.open[first],
                max(high),
                min(low),
                close[-1],
                total,
                turnover / total if total else None,
                place - first == expected,
                bars.session_date,
            )
        )
        first = place
    return found


def newest_candles(
    interval: Interval,
    loaded: Sequence[Candle],
    staged: Iterable[SessionBars],
    before: datetime | None,
    limit: int,
) -> tuple[list[Candle], int | None]:
    """Return the newest ``limit`` candles that open before a moment (UTC), in time order, and ``before`` of the rest.

    A staged session replaces its loaded candles, because it is at least as new. ``loaded`` holds up to ``limit`` + 1
    candles of the warehouse: one more than fits means that there is an older page. Without one, ``before`` is None.
    """
    newer = [(bars.session_date, session_candles(bars, MINUTES[interval])) for bars in staged]
    days = {day for day, _ in newer}
    rows = [candle for candle in loaded if candle.session_date not in days]
    rows += [candle for _, candles in newer for candle in candles if before is None or candle.time < before]
    rows.sort(key=lambda candle: candle.time)
    shown = rows[-limit:]
    return shown, int(shown[0].time.timestamp()) if len(rows) > limit else None
