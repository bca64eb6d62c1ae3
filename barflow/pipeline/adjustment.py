"""The factors that adjust one symbol's bars of the archive, from its staged actions."""

from __future__ import annotations

from datetime import date

from barflow.errors import BadInputError
from barflow.lake.adjustment import factors_at, first_session
from barflow.lake.partitions import Lake
from barflow.lake.series import find_share
from barflow.market.actions import Action, Adjust, Factors
from barflow.market.sessions import new_york
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
    basis = new_york(stores.clock()).date()
    share = find_share(lake, stores.instruments, symbol)
    return factors_at(lake, share, known.actions, adjust, first_session(lake, share, first), basis)
