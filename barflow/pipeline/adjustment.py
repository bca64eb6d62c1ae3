"""The factors that adjust one symbol's bars of the archive, from its staged actions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cache

from barflow.errors import BadInputError
from barflow.lake.partitions import Lake
from barflow.lake.series import read_series
from barflow.market.actions import Action, Adjust, Factors, factors
from barflow.market.instruments import Instruments
from barflow.market.sessions import new_york, previous_session
from barflow.pipeline.stores import Stores
from barflow.staging.actions import Actions


def factors_of(stores: Stores, lake: Lake, symbol: str, adjust: Adjust, first: date) -> tuple[Factors, list[Action]]:
    """Return the factors for the archive's sessions from ``first`` on, and the actions that they apply.

    Prices are in the shares of today, by the market's clock. Raises BadInputError if the actions were never fetched,
    and BarflowError if a dividend cannot be applied.
    """
    known = Actions(stores.database).of([symbol])[symbol]
    if not known.has("split"):
        raise BadInputError(
            f"no splits of {symbol} were ever fetched. Nothing was written. Run `barflow actions refresh --symbols "
            f"{symbol}`, or give them in a file to `barflow actions import`."
        )
    if adjust == "all" and not known.has("dividend"):
        raise BadInputError(
            f"no dividends of {symbol} were ever fetched: that needs a plan from Grow up. Nothing was written. Give "
            "them in a file to `barflow actions import`, or use --adjust splits."
        )
    basis, first = new_york(stores.clock()).date(), _first_session(lake, stores.instruments, symbol, first)
    kinds = ("split", "dividend") if adjust == "all" else ("split",)
    applied = [item for item in known.actions if item.kind in kinds and first < item.ex_date <= basis]
    return factors(applied, adjust, basis, _closes(lake, stores.instruments, symbol)), applied


def _first_session(lake: Lake, instruments: Instruments, symbol: str, first: date) -> date:
    """Return the first session from a day on that the archive has: an action up to it changes no price."""
    found = lake.partitions(instruments.stored_names([symbol]))
    for month in sorted({month for _, month, _ in found if month >= first.isoformat()[:7]}):
        bars = read_series(lake, instruments, symbol, month)
        days: list[date] = bars["session_date"].to_pylist() if bars else []
        if after := [day for day in days if day >= first]:
            return after[0]
    return first


def _closes(lake: Lake, instruments: Instruments, symbol: str) -> Callable[[date], float | None]:
    """Return the function from an ex-date to the raw close (dollars) of the session before, None without bars."""

    @cache
    def of_month(month: str) -> dict[date, float]:
        bars = read_series(lake, instruments, symbol, month)
        if bars is None:
            return {}
        return dict(zip(bars["session_date"].to_pylist(), bars["close"].to_pylist(), strict=True))

    def close_before(day: date) -> float | None:
        before = previous_session(day)
        return of_month(before.month).get(before.session_date) if before else None

    return close_before
