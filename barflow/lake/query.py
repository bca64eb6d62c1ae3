"""A query of the archive: which bars to read, in which interval, adjustment and columns, and as known at which moment.

It reads files of the archive alone, one share after the other in each thread. A share is adjusted and put into its
interval before the next one is read, so the memory follows the result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import TypeVar

import pyarrow as pa

from barflow.errors import BadInputError
from barflow.lake.actions import find_actions
from barflow.lake.adjusted import adjusted
from barflow.lake.adjustment import factors_at
from barflow.lake.bar_files import on_disk
from barflow.lake.intervals import INTERVALS, Interval, in_buckets, interval_schema, needed
from barflow.lake.partitions import Lake
from barflow.lake.series import Share, find_share, read_series
from barflow.market.actions import ADJUSTS, Action, Adjust, Factors
from barflow.market.arrow import arrow_schema
from barflow.market.bars import INTERVAL
from barflow.market.instruments import Instruments
from barflow.market.sessions import new_york, sessions_between, utc_now

# Requests to S3 wait for the network, not for a core.
S3_THREADS = 16
SYMBOL = pa.field("symbol", pa.string(), nullable=False)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Query:
    """Which bars to read of each share. The constructor raises BadInputError for what the archive cannot answer.

    ``first`` and ``last`` are sessions, both included. ``as_of`` (UTC) is the moment whose knowledge to read; None: all
    that is known. ``columns`` are those of the result, in order; None: all.
    """

    first: date
    last: date
    interval: Interval = "5min"
    adjust: Adjust = "splits"
    as_of: datetime | None = None
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise BadInputError(f"end {self.last} is before start {self.first}.")
        sessions_between(self.first, self.last)
        for name, given, known in (("interval", self.interval, INTERVALS), ("adjust", self.adjust, ADJUSTS)):
            if given not in known:
                raise BadInputError(f"{name} {given!r} does not exist. Choose {', '.join(known)}.")
        names = self.all_columns.names
        if unknown := [name for name in self.columns or () if name not in names]:
            raise BadInputError(
                f"bars of {self.interval} have no column {', '.join(map(repr, unknown))}. Choose {', '.join(names)}."
            )
        if self.columns is not None and len({*self.columns}) < max(1, len(self.columns)):
            raise BadInputError("columns must name at least one column, and each once.")

    @property
    def all_columns(self) -> pa.Schema:
        """Return every column of bars of this interval and adjustment."""
        volume = pa.int64() if self.adjust == "none" else pa.float64()
        if self.interval != INTERVAL:
            return pa.schema([SYMBOL, *interval_schema(volume)])
        bars = arrow_schema()
        return pa.schema([SYMBOL, *(item.with_type(volume) if item.name == "volume" else item for item in bars)])

    @cached_property
    def schema(self) -> pa.Schema:
        """Return the columns of the result."""
        whole = self.all_columns
        return whole if self.columns is None else pa.schema([whole.field(name) for name in self.columns])

    @property
    def basis(self) -> date:
        """Return the day (New York) in whose shares adjusted prices are: that of the moment, or today."""
        return new_york(self.as_of or utc_now()).date()


def read_shares(lake: Lake, instruments: Instruments, symbols: Iterable[str], query: Query) -> pa.Table:
    """Return the bars of shares, by any of their symbols, sorted by present symbol and ts.

    Raises BadInputError if the archive has no bars of a symbol at all.
    """
    threads = (os.cpu_count() or 1) if on_disk(lake) else S3_THREADS
    shares = _found(lake, instruments, symbols, threads)
    each = max(1, threads // len(shares))
    return pa.concat_tables(_map(lambda share: read_share(lake, share, query, each)[0], shares, threads))


def read_share(lake: Lake, share: Share, query: Query, threads: int = 1) -> tuple[pa.Table, list[Action]]:
    """Return the bars of one share, sorted by ts, and the actions that adjust them.

    Raises BadInputError if its dividends are to be applied and were never fetched, BarflowError if one of them cannot
    be applied.
    """
    names = [name for name in query.schema.names if name != SYMBOL.name]
    if query.interval != INTERVAL:
        names = sorted(needed(names))
    bars = read_series(lake, share, query.first, query.last, columns=names, as_of=query.as_of, threads=threads)
    factors, applied = _factors(lake, share, query, bars)
    if query.adjust != "none":
        bars = adjusted(bars, factors)
    # A table has as many rows as its columns, so it needs one even if only the symbol is asked for.
    schema = pa.schema([item for item in query.schema if item.name != SYMBOL.name] or [query.all_columns.field("ts")])
    if query.interval != INTERVAL:
        bars = in_buckets(bars, query.interval, schema)
    # One chunk per share: the small buffers of its files are released.
    bars = bars.select(schema.names).combine_chunks()
    columns = {SYMBOL.name: pa.repeat(pa.scalar(share.symbol), bars.num_rows)} | dict(
        zip(bars.column_names, bars.columns, strict=True)
    )
    return pa.table([columns[name] for name in query.schema.names], query.schema), applied


def _factors(lake: Lake, share: Share, query: Query, bars: pa.Table) -> tuple[Factors, list[Action]]:
    if query.adjust == "none" or not bars:
        return Factors(), []
    known = find_actions(lake, share.symbol)
    if query.adjust == "all" and "dividend" not in known.kinds:
        raise BadInputError(
            f"the archive does not know the dividends of {share.symbol}: they were never fetched, which needs a plan "
            "from Grow up, or were not processed since. Give them in a file to `barflow actions import` and run "
            "`barflow process --full`, or choose adjust splits."
        )
    first: date = bars["session_date"][0].as_py()
    actions = [version.action for version in known.known_at(query.as_of)]
    return factors_at(lake, share, actions, query.adjust, first, query.basis, as_of=query.as_of)


def _found(lake: Lake, instruments: Instruments, symbols: Iterable[str], threads: int) -> list[Share]:
    """Return the shares by symbol. Raise BadInputError that names those without bars."""
    present = sorted(instruments.resolve(symbols)[0])
    shares = _map(lambda symbol: find_share(lake, instruments, symbol), present, threads)
    if missing := [share.symbol for share in shares if not share.parts]:
        raise BadInputError(
            f"the archive {lake.uri} has no bars of {', '.join(missing)}. Check the spelling, or fetch them with "
            "`barflow backfill` and run `barflow process`."
        )
    return shares


def _map(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """Return the results in order. After an error, no further item starts."""
    pool = ThreadPoolExecutor(min(threads, len(items)))
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(cancel_futures=True)
