"""What does the watch-list say of a symbol? Last price, change, trend and freshness, from both stores. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from barflow.market.sessions import BAR, last_sessions, new_york, session_at, sessions_between
from barflow.pipeline.status import close_due
from dashboard.models import Freshness, Market, Trend, WatchRow
from dashboard.queries import Loaded
from dashboard.staged import Day, thinned

SPARK_POINTS = 40
# The longest that the exchange has been closed at a stretch, with room.
LONGEST_BREAK = timedelta(days=10)


def market_at(now: datetime) -> Market:
    """The exchange at a moment (UTC)."""
    opened = session_at(now)
    newest = opened or next(iter(last_sessions(now, 1)), None)
    today = new_york(now).date()
    coming = () if opened else sessions_between(today, today + LONGEST_BREAK)
    return Market(
        now=now,
        open=opened is not None,
        session_date=newest and newest.session_date,
        opens=newest and newest.opens,
        closes=newest and newest.closes,
        next_open=next((item.opens for item in coming if item.opens > now), None),
    )


def row(symbol: str, loaded: Loaded | None, days: Sequence[Day], now: datetime) -> WatchRow:
    """One symbol at a moment (the market's, UTC). ``days`` are its newest staged sessions, oldest first.

    The averages and RSI are of daily closes, as of the last load; the price is held against them.
    """
    if days and loaded and loaded.session_date > days[-1].session_date:
        days = ()  # staging was expired; the archive goes on alone
    last, prev, volume, newest, spark = _prices(loaded, days)
    change = last - prev if last is not None and prev is not None else None
    return WatchRow(
        symbol=symbol,
        last=last,
        prev_close=prev,
        change=change,
        change_pct=change / prev * 100 if change is not None and prev else None,
        volume=volume,
        spark=spark,
        trend=trend(last, loaded),
        sma_20=loaded and loaded.sma_20,
        sma_50=loaded and loaded.sma_50,
        rsi_14=loaded and loaded.rsi_14,
        newest_bar=newest,
        age_minutes=round((now - newest - BAR).total_seconds() / 60, 1) if newest else None,
        freshness=freshness(newest, now),
    )


Prices = tuple[float | None, float | None, int | None, datetime | None, list[float]]


def _prices(loaded: Loaded | None, days: Sequence[Day]) -> Prices:
    """Last price, close of the session before, volume, newest bar's open, sparkline."""
    if not days:
        if loaded is None:
            return None, None, None, None, []
        return loaded.close, loaded.prev_close, loaded.volume, loaded.newest_bar, loaded.spark
    newest = days[-1]
    if len(days) > 1:
        prev: float | None = days[-2].closes[-1]
    elif loaded is None:
        prev = None
    else:
        prev = loaded.prev_close if loaded.session_date == newest.session_date else loaded.close
    spark = thinned([close for day in days for close in day.closes], SPARK_POINTS)
    return newest.closes[-1], prev, newest.volume, newest.newest_bar, spark


def trend(last: float | None, loaded: Loaded | None) -> Trend | None:
    """Where the price stands against its averages and they to each other; None until there is one of them."""
    averages = [value for value in (loaded.sma_20, loaded.sma_50) if value is not None] if loaded else []
    if last is None or not averages:
        return None
    ladder = [last, *averages]
    if ladder == sorted(ladder, reverse=True):
        return "up"
    return "down" if ladder == sorted(ladder) else "mixed"


def freshness(newest: datetime | None, now: datetime) -> Freshness:
    """``stale`` when bars are due that are not there, give or take two ticks; else by whether the market is open."""
    due, opened = _moment(now)
    if newest is None or (due is not None and newest + BAR < due):
        return "stale"
    return "fresh" if opened else "closed"


@lru_cache(maxsize=8)
def _moment(now: datetime) -> tuple[datetime | None, bool]:
    """The close that is due, and whether the market is open: asked for each symbol, at the same moment."""
    return close_due(now), session_at(now) is not None
