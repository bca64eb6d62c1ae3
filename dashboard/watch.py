"""Rows of the watch list: last price, change, trend and freshness, from both stores. Everything here is pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from barflow.market.actions import Factors
from barflow.market.sessions import BAR, last_sessions, new_york, session_at, sessions_between
from barflow.pipeline.status import close_due
from dashboard.adjustment import loaded_today, staged_today
from dashboard.models import Freshness, Market, Trend, WatchRow
from dashboard.queries import Loaded
from dashboard.staged import RecentSession, sampled

SPARK_POINTS = 40
# Longer than the exchange ever stays closed at a stretch.
LONGEST_BREAK = timedelta(days=10)


def market_at(now: datetime) -> Market:
    """Return the state of the exchange at a moment (UTC)."""
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


def watch_row(
    symbol: str, loaded: Loaded | None, staged: Sequence[RecentSession], factors: Factors, now: datetime
) -> WatchRow:
    """Return the row of one symbol at a moment of the market's clock (UTC).

    ``staged`` are the symbol's newest staged sessions, oldest first. ``factors`` put all prices into the shares of
    today, so a split is no change of the price. The averages and RSI are those of daily closes, as of the last load.
    The trend compares the last price with them.
    """
    if staged and loaded and loaded.session_date > staged[-1].session_date:
        staged = ()  # the staged sessions have expired; the warehouse has newer ones
    loaded, staged = loaded and loaded_today(loaded, factors), staged_today(staged, factors)
    last, prev, volume, newest, spark = _prices(loaded, staged)
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


def _prices(loaded: Loaded | None, staged: Sequence[RecentSession]) -> Prices:
    """Return last price, previous close, volume, the newest bar's open and the sparkline."""
    if not staged:
        if loaded is None:
            return None, None, None, None, []
        return loaded.close, loaded.prev_close, loaded.volume, loaded.newest_bar, loaded.spark
    newest = staged[-1]
    if len(staged) > 1:
        prev: float | None = staged[-2].closes[-1]
    elif loaded is None:
        prev = None
    else:
        prev = loaded.prev_close if loaded.session_date == newest.session_date else loaded.close
    spark = sampled([close for item in staged for close in item.closes], SPARK_POINTS)
    return newest.closes[-1], prev, newest.volume, newest.newest_bar, spark


def trend(last: float | None, loaded: Loaded | None) -> Trend | None:
    """Return "up" if price, sma_20 and sma_50 fall in this order, "down" if they rise, else "mixed".

    Return None without a price or without any average.
    """
    averages = [value for value in (loaded.sma_20, loaded.sma_50) if value is not None] if loaded else []
    if last is None or not averages:
        return None
    levels = [last, *averages]
    if levels == sorted(levels, reverse=True):
        return "up"
    return "down" if levels == sorted(levels) else "mixed"


def freshness(newest: datetime | None, now: datetime) -> Freshness:
    """Return "stale" where due bars are missing (two ticks of tolerance), else "fresh" or "closed" by the market."""
    due, opened = _due_and_open(now)
    if newest is None or (due is not None and newest + BAR < due):
        return "stale"
    return "fresh" if opened else "closed"


@lru_cache(maxsize=8)
def _due_and_open(now: datetime) -> tuple[datetime | None, bool]:
    """Return the close that is due, and whether the market is open. Cached: every symbol needs it at one moment."""
    return close_due(now), session_at(now) is not None
