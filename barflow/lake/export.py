"""Export research data from the archive: one symbol's 5-minute bars as CSV or Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from barflow.errors import BadInputError, BarflowError
from barflow.lake.adjusted import adjusted
from barflow.lake.partitions import Lake
from barflow.lake.series import find_share, read_series
from barflow.market.actions import Factors
from barflow.market.instruments import Instruments
from barflow.market.sessions import sessions_between


@dataclass(frozen=True)
class Exported:
    """What an export wrote: the number of bars, and the listed sessions of the range without any bar in the archive."""

    rows: int
    without_bars: tuple[date, ...]


def export_bars(
    lake: Lake,
    symbol: str,
    first: date,
    last: date,
    to: Path,
    *,
    force: bool = False,
    factors: Factors | None = None,
    instruments: Instruments | None = None,
) -> Exported:
    """Write the bars of the sessions from ``first`` to ``last``, both included: raw, or adjusted by ``factors``.

    ``symbol`` is the present one. Bars that are stored under a former symbol of the share are part of its series.
    Columns: symbol, ts (bar open, UTC), session_date (New York), open, high, low, close (dollars), volume
    (shares; whole unless adjusted), revision. The file appears whole or not at all. Raises BadInputError when nothing
    matches.
    """
    if to.suffix not in (".csv", ".parquet"):
        raise BadInputError(f"--to {to}: the name must end in .csv or .parquet")
    if to.exists() and not force:
        raise BadInputError(f"--to {to}: the file exists; pass --force to replace it")
    if last < first:
        raise BadInputError(f"--end {last} is before --start {first}")
    sessions = sessions_between(first, last)
    instruments = instruments or Instruments()
    bars = read_series(lake, find_share(lake, instruments, symbol), first, last)
    if not bars:
        raise BadInputError(
            f"the archive has no bars of {symbol} from {first} to {last}. Run `barflow status` to see it."
        )
    bars = adjusted(bars, factors) if factors else bars
    held = {day.as_py() for day in pc.unique(bars["session_date"])}
    bars = bars.add_column(0, "symbol", pa.array([symbol] * bars.num_rows, pa.string()))
    target = to.with_name(f".{to.name}.part")
    try:
        pq.write_table(bars, target) if to.suffix == ".parquet" else pa_csv.write_csv(bars, target)
        target.replace(to)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise BarflowError(
            f"could not write {to}: {error.strerror or error}. Choose another place with --to."
        ) from None
    listed = (traded.session_date for traded in sessions if instruments.is_listed(symbol, traded.session_date))
    return Exported(bars.num_rows, tuple(day for day in listed if day not in held))
