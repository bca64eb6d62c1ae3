"""Which candles are on a page of a chart? The warehouse's, and over them what is staged and not loaded yet. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import NamedTuple

from barflow.errors import BadInputError
from barflow.market.bars import SessionBars
from barflow.market.sessions import BAR, session
from dashboard.models import Bars, Interval

# Minutes of a bucket; a session is shorter than a day, so a day's bucket is the session.
MINUTES: dict[Interval, int] = {"5min": 5, "30min": 30, "1h": 60, "1d": 1440}


class Candle(NamedTuple):
    """A bucket that opens at ``time`` (UTC); prices in dollars, volume in shares."""

    time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: int
    vwap: float | None
    complete: bool
    session_date: date


def bucketed(bars: SessionBars, minutes: int) -> list[Candle]:
    """A staged session as candles counted from its open; the last one is as far as its 5-minute bars go.

    The rules are those of the warehouse: vwap = sum(typical * volume) / sum(volume), and a candle is complete when it
    holds as many bars as the calendar expects in it.
    """
    traded = session(bars.session_date)
    if traded is None:
        raise BadInputError(f"{bars.symbol} {bars.session_date}: bars of a day without a session")
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


def page(
    symbol: str,
    interval: Interval,
    loaded: Sequence[Candle],
    staged: Iterable[SessionBars],
    before: datetime | None,
    limit: int,
) -> Bars:
    """The newest ``limit`` candles before a moment, in time order. A session that is staged is taken from there:
    it is at least as new as what was loaded of it.

    ``loaded`` are up to ``limit`` + 1 of the warehouse, of which the one too many says that there is an older page.
    """
    newer = [(bars.session_date, bucketed(bars, MINUTES[interval])) for bars in staged]
    days = {day for day, _ in newer}
    rows = [candle for candle in loaded if candle.session_date not in days]
    rows += [candle for _, candles in newer for candle in candles if before is None or candle.time < before]
    rows.sort(key=lambda candle: candle.time)
    shown = rows[-limit:]
    return Bars(
        symbol=symbol,
        interval=interval,
        time=[int(candle.time.timestamp()) for candle in shown],
        open=[candle.open for candle in shown],
        high=[candle.high for candle in shown],
        low=[candle.low for candle in shown],
        close=[candle.close for candle in shown],
        volume=[candle.volume for candle in shown],
        vwap=[candle.vwap for candle in shown],
        complete=[candle.complete for candle in shown],
        older=int(shown[0].time.timestamp()) if len(rows) > limit else None,
    )
