"""Compare what the stores hold of one bar: which hop has not run yet, and which values differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from barflow.market.bars import PRICES
from barflow.market.versions import BarVersion
from barflow.operations.why.story import Stored, Values

VALUES = (*PRICES, "volume")


@dataclass(frozen=True)
class Reached:
    """Which stores were read, and how far the newest version is: ``published`` to the lake, ``loaded`` from it."""

    staging: bool
    lake: bool
    warehouse: bool
    published: bool
    loaded: bool


def values_of(version: BarVersion | None) -> Values | None:
    """Return prices and volume of a version."""
    return None if version is None else Values(**{name: getattr(version, name) for name in VALUES})


def stored(staging: Values | None, lake: Values | None, warehouse: Values | None) -> Stored:
    """Return the values of the stores, and whether those that hold the bar agree."""
    held = [item for item in (staging, lake, warehouse) if item]
    agree = all(item == held[0] for item in held)
    return Stored(staging=staging, lake=lake, warehouse=warehouse, agree=agree)


def gaps(found: Stored, reached: Reached, symbol: str) -> Iterator[str]:
    """Yield a line for each hop that has not run yet, and for each store whose values differ from the store before."""
    staging, lake, warehouse = found.staging, found.lake, found.warehouse
    if reached.staging and staging is None:
        yield "MongoDB no longer holds the bar: sessions expire there once the lake and the warehouse hold them."
    if reached.lake and lake is None:
        yield "The lake does not hold the bar yet. The next `barflow process` writes it."
    elif staging and lake and staging != lake:
        yield (
            f"The lake differs from MongoDB: {_difference(lake, staging)}. "
            f"Run `barflow process --full --symbols {symbol}`."
            if reached.published
            else "The lake holds an earlier version. The next `barflow process` writes the newest one."
        )
    before = lake or (None if reached.lake else staging)
    if reached.warehouse and before and warehouse is None:
        yield "The warehouse does not hold the bar yet. The next `barflow aggregate` loads it."
    elif before and warehouse and warehouse != before:
        yield (
            f"The warehouse differs from {'the lake' if lake else 'MongoDB'}: {_difference(warehouse, before)}. "
            f"Run `barflow aggregate --full --symbols {symbol}`."
            if reached.loaded
            else "The warehouse holds an earlier version. The next `barflow aggregate` loads the newest one."
        )


def _difference(one: Values, other: Values) -> str:
    """Return which values differ, such as ``close 101.2 instead of 101.3``."""
    mine, theirs = one.model_dump(), other.model_dump()
    return ", ".join(f"{name} {mine[name]} instead of {theirs[name]}" for name in mine if mine[name] != theirs[name])
