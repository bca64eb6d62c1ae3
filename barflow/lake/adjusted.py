"""Adjusted columns: an Arrow table of bars with its prices and volumes multiplied by the factors of their sessions."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from barflow.market.actions import Factor, Factors
from barflow.market.bars import PRICES


def adjusted(bars: pa.Table, factors: Factors) -> pa.Table:
    """Return the bars of one symbol with adjusted prices (dollars) and volume (shares, a double).

    The columns keep their order. A table may lack some of them, but not session_date.
    """
    scaled = {"volume": "volume"}
    if factors.ex_dates:
        scaled |= dict.fromkeys(PRICES, "price")
        days = pc.dictionary_encode(bars["session_date"].combine_chunks())
        found = [factors.at(day.as_py()) for day in days.dictionary]
    for name in scaled.keys() & set(bars.column_names):
        values = bars[name].cast(pa.float64())
        if factors.ex_dates:
            values = pc.multiply(values, _of_each_bar(days.indices, found, scaled[name]))
        bars = bars.set_column(bars.schema.get_field_index(name), pa.field(name, pa.float64(), nullable=False), values)
    return bars


def _of_each_bar(session: pa.Array, found: Sequence[Factor], name: str) -> pa.Array:
    """Return one factor for each bar. ``session`` are places in ``found``."""
    return pa.array([getattr(factor, name) for factor in found], pa.float64()).take(session)
