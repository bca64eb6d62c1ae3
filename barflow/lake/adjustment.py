"""The factors that adjust a share's bars of the archive, from the actions that were known at a moment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from barflow.lake.partitions import Lake
from barflow.lake.series import Share, read_series
from barflow.market.actions import Action, Adjust, Factors, factors
from barflow.market.sessions import previous_session


def factors_at(
    lake: Lake,
    share: Share,
    actions: Iterable[Action],
    adjust: Adjust,
    first: date,
    basis: date,
    *,
    as_of: datetime | None = None,
) -> tuple[Factors, list[Action]]:
    """Return the factors for a share's sessions from ``first`` on, and the actions that they apply.

    ``first`` is the first session that has bars: an action up to it changes no price. Prices are in the shares of the
    session ``basis``. A dividend's factor comes from the raw close before it, as it was known at ``as_of`` (UTC).
    Raises BarflowError if a dividend cannot be applied.
    """
    kinds = ("split", "dividend") if adjust == "all" else ("split",)
    applied = [item for item in actions if item.kind in kinds and first < item.ex_date <= basis]

    def close_before(day: date) -> float | None:
        before = previous_session(day)
        if before is None:
            return None
        days = before.session_date, before.session_date
        closes = read_series(lake, share, *days, columns=["close"], as_of=as_of)["close"]
        return float(closes[-1].as_py()) if len(closes) else None

    return factors(applied, adjust, basis, close_before), applied
