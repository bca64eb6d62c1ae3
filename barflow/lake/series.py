"""The continuous series of a share: its bars of the archive, under every symbol that it had."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from barflow.lake.partitions import Lake
from barflow.market.instruments import Instruments


def read_series(lake: Lake, instruments: Instruments, symbol: str, month: str) -> pa.Table | None:
    """Return the bars of a share in an exchange-local month (``2022-06``), sorted by ts, or None without any.

    ``symbol`` is the present one. Each session comes whole from the newest symbol that has it.
    """
    parts: list[pa.Table] = []
    held: set[object] = set()
    for name in instruments.stored_names([symbol]):
        if name != symbol and f"{instruments.former[name][1]:%Y-%m}" < month:
            continue
        bars = lake.read(name, month)
        if bars is None:
            continue
        days = pc.unique(bars["session_date"]).to_pylist()
        wanted = [day for day in days if day not in held and instruments.present_on(name, day) == symbol]
        held.update(wanted)
        parts.append(bars.filter(pc.is_in(bars["session_date"], pa.array(wanted, pa.date32()))))
    return pa.concat_tables(parts).sort_by("ts") if held else None
