"""The adjustment of the page's prices to the shares of today, for the chart and the rows of the watch list.

Everything here is pure. Dates are exchange-local, prices are dollars, volumes are shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache

from barflow.errors import BadInputError, BarflowError
from barflow.market.actions import KINDS, Action, Adjust, Dividend, Factors, Kind, Split, factors, split_factors
from barflow.market.sessions import previous_session
from barflow.staging.actions import Known
from dashboard.candles import Candle
from dashboard.models import Bars, ChartAction, Interval
from dashboard.queries import Loaded
from dashboard.staged import RecentSession


@dataclass(frozen=True)
class Adjustment:
    """What is applied to the candles of one symbol.

    Args:
        adjust: What is applied: none where the splits were never fetched.
        factors: The factors by session, in the shares of today.
        actions: The splits and dividends after the oldest candle, applied or not, oldest first.
        basis: The newest ex-date that is in effect.
        known_from: When the newest version of the symbol's actions was learned (UTC).
        fetched: Whether each kind was ever fetched or imported.
    """

    adjust: Adjust
    factors: Factors
    actions: list[ChartAction]
    basis: date | None
    known_from: datetime | None
    fetched: Mapping[Kind, bool]

    def of(self, candles: Iterable[Candle]) -> list[Candle]:
        """Return the candles with adjusted prices and volumes."""
        return [_adjusted(candle, self.factors) for candle in candles] if self.factors.ex_dates else [*candles]


def adjustment(
    symbol: str,
    known: Known,
    adjust: Adjust,
    first: date,
    today: date,
    closes: Callable[[Sequence[date]], Mapping[date, float]],
) -> Adjustment:
    """Return what to apply to the candles of the sessions from ``first`` on.

    ``closes`` returns the raw closes of sessions, and is called for ``all`` only. Raises BadInputError for ``all`` if
    an action was never fetched, or if a dividend has no close before it or is not below it.
    """
    fetched = {kind: known.has(kind) for kind in KINDS}
    if adjust == "all" and not all(fetched.values()):
        raise BadInputError(
            f"adjust=all needs the splits and dividends of {symbol}, and they were never fetched. Run `barflow actions "
            f"refresh --symbols {symbol}` (dividends need a plan from Grow up), or ask for adjust=splits."
        )
    applied = adjust if fetched["split"] else "none"
    in_effect = [item for item in known.actions if item.ex_date <= today and _is_real(item)]
    later = [item for item in in_effect if item.ex_date > first]
    close_before = _close_before(symbol, later, closes) if applied == "all" else _no_close
    try:
        found = factors(later, applied, today, close_before)
    except BarflowError:
        raise BadInputError(
            f"A dividend of {symbol} is not below the close before it, so adjust=all cannot be answered. Import the "
            "right amount with `barflow actions import`, or ask for adjust=splits."
        ) from None
    versions = [item.known_until or item.action.known_from for item in known.versions]
    return Adjustment(
        applied,
        found,
        [_shown(item, applied) for item in later],
        max((item.ex_date for item in in_effect), default=None),
        max(versions, default=None),
        fetched,
    )


def bars_answer(
    symbol: str, interval: Interval, applied: Adjustment, candles: Iterable[Candle], older: int | None
) -> Bars:
    """Return the answer with the adjusted candles, given the raw ones."""
    shown = applied.of(candles)
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
        older=older,
        adjust=applied.adjust,
        actions=applied.actions,
        basis=applied.basis,
        actions_known_from=applied.known_from,
        splits_fetched=applied.fetched["split"],
        dividends_fetched=applied.fetched["dividend"],
    )


@lru_cache(maxsize=10_000)
def today_factors(splits: tuple[Split, ...], today: date) -> Factors:
    """Return the factors of a symbol's splits, in the shares of today. Cached: every event needs them."""
    return split_factors(splits, today)


def loaded_today(loaded: Loaded, found: Factors) -> Loaded:
    """Return a loaded session in the shares of today. It is given in its own shares, also its averages."""
    if not _changes(found, loaded.spark_sessions[0] if loaded.spark_sessions else loaded.session_date):
        return loaded
    own = found.at(loaded.session_date)
    names = ("close", "prev_close", "sma_20", "sma_50")
    prices = {name: value and value * own.price for name in names for value in [getattr(loaded, name)]}
    spark = [close * found.at(day).price for close, day in zip(loaded.spark, loaded.spark_sessions, strict=True)]
    return replace(loaded, **prices, volume=round(loaded.volume * own.volume), spark=spark)


def staged_today(sessions: Sequence[RecentSession], found: Factors) -> Sequence[RecentSession]:
    """Return staged sessions in the shares of today."""
    if not sessions or not _changes(found, sessions[0].session_date):
        return sessions
    return [
        replace(item, closes=tuple(close * own.price for close in item.closes), volume=round(item.volume * own.volume))
        for item in sessions
        for own in [found.at(item.session_date)]
    ]


def _changes(found: Factors, first: date) -> bool:
    """Return whether the factors change a session from ``first`` on."""
    return bool(found.ex_dates) and found.ex_dates[-1] > first


def _adjusted(candle: Candle, found: Factors) -> Candle:
    factor = found.at(candle.session_date)
    return candle._replace(
        open=candle.open * factor.price,
        high=candle.high * factor.price,
        low=candle.low * factor.price,
        close=candle.close * factor.price,
        vwap=candle.vwap if candle.vwap is None else candle.vwap * factor.price,
        volume=candle.volume * factor.volume,
    )


def _is_real(action: Action) -> bool:
    """Return whether there was an action. A ratio of 1 or an amount of 0 says that there was none."""
    return action.value != (1 if isinstance(action, Split) else 0)


def _no_close(day: date) -> float | None:
    return None


def _close_before(
    symbol: str, actions: Iterable[Action], closes: Callable[[Sequence[date]], Mapping[date, float]]
) -> Callable[[date], float | None]:
    """Return the function from the ex-date of a dividend to the raw close before it. Raise BadInputError without."""
    before = {
        item.ex_date: found.session_date
        for item in actions
        if isinstance(item, Dividend) and (found := previous_session(item.ex_date))
    }
    stored = closes(sorted({*before.values()})) if before else {}
    for ex_date, day in before.items():
        if day not in stored:
            raise BadInputError(
                f"adjust=all needs the close of {symbol} before the dividend on {ex_date}, and the session of {day} is "
                "not stored. Fetch it with `barflow backfill`, or ask for adjust=splits."
            )
    return lambda ex_date: stored[before[ex_date]]


def _shown(action: Action, applied: Adjust) -> ChartAction:
    is_split = isinstance(action, Split)
    return ChartAction(
        kind=action.kind,
        ex_date=action.ex_date,
        ratio=action.value if is_split else None,
        amount=None if is_split else action.value,
        label=action.label,
        source=action.source,
        applied=applied == "all" or (applied == "splits" and is_split),
    )
