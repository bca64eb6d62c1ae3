"""Factor ranges: spans of sessions that share one pair of factors, for the warehouse and the daily metrics. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from barflow.errors import BarflowError
from barflow.market.actions import Action, Dividend, factors

DAY = timedelta(days=1)


@dataclass(frozen=True)
class FactorRange:
    """The factors of the sessions from ``first_day`` to ``last_day``, both included.

    A price is divided by ``split``, and multiplied by ``dividend`` to adjust it for dividends too. A volume is
    multiplied by ``split``. ``dividend`` is None if the close before a later dividend is unknown.
    """

    first_day: date
    last_day: date
    split: float
    dividend: float | None


def factor_ranges(
    actions: Iterable[Action], basis: date, close_before: Callable[[date], float | None]
) -> tuple[list[FactorRange], list[date]]:
    """Return the ranges before the newest ex-date of one symbol, and the ex-dates whose dividend cannot be applied.

    Prices are then in the shares of the session ``basis``. The ranges are in order and leave no day out. A dividend
    cannot be applied if the raw close before it (dollars, from ``close_before``) is unknown or not above it.
    """
    known = list(actions)
    unusable = sorted(
        {
            item.ex_date
            for item in known
            if isinstance(item, Dividend) and not _applies(known, item, basis, close_before)
        }
    )
    usable_from = unusable[-1] if unusable else date.min
    splits = factors(known, "splits", basis, close_before)
    both = factors([item for item in known if item.ex_date > usable_from], "all", basis, close_before)
    ends = sorted({*splits.ex_dates, *both.ex_dates, *unusable})
    ranges, first = [], date.min
    for ex_date in ends:
        last = ex_date - DAY
        step = splits.at(last)
        # Without a dividend, both prices are equal and the quotient is exactly 1.
        dividend = None if last < usable_from else both.at(last).price / step.price
        ranges.append(FactorRange(first, last, step.volume, dividend))
        first = ex_date
    return ranges, unusable


def _applies(
    actions: list[Action], dividend: Dividend, basis: date, close_before: Callable[[date], float | None]
) -> bool:
    """Return whether a dividend that is in effect has a close above it."""
    same_day = [item for item in actions if item.ex_date == dividend.ex_date]
    try:
        factors(same_day, "all", basis, close_before)
    except BarflowError:
        return False
    return True
