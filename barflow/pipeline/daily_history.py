"""The stored daily bars around a load and around changed splits: the sessions that the windows of its metrics reach.

Spark tasks read a few rows per symbol by an index, so the cost follows the sessions that are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from psycopg import sql

from barflow.pipeline.frames import LONGEST_WINDOW, small_frame
from barflow.pipeline.load_plan import Plan
from barflow.warehouse.connection import connect, warehouse_errors

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

COLUMNS = (
    "symbol string, session_date date, open double, high double, low double, close double, volume long, "
    "realized_vol double"
)
# Per range: the stored sessions within it, and as many before and after it as the longest window reaches.
QUERY = """
select b.symbol, b.session_date, b.open, b.high, b.low, b.close, b.volume, m.realized_vol
from unnest({symbols}::text[], {firsts}::date[], {lasts}::date[]) as r (symbol, first, last)
cross join lateral (
    (select * from market.bar_1d as d where d.symbol = r.symbol and d.session_date < r.first
     order by d.session_date desc limit {reach})
    union all
    (select * from market.bar_1d as d where d.symbol = r.symbol and d.session_date between r.first and r.last)
    union all
    (select * from market.bar_1d as d where d.symbol = r.symbol and d.session_date > r.last
     order by d.session_date limit {reach})
) as b
left join market.daily_metrics as m on m.symbol = b.symbol and m.session_date = b.session_date
"""
SYMBOLS_PER_TASK = 100


def daily_history(spark: SparkSession, plan: Plan, rebased: Mapping[str, Sequence[date]], dsn: str) -> DataFrame:
    """Return the stored daily bars (dollars, shares) in and around the planned sessions, except of whole symbols.

    ``rebased`` holds the ex-dates of changed splits by symbol: the sessions around those are returned too.
    """
    ranges: dict[str, tuple[date, date]] = {}
    split_days = [(symbol, day) for symbol, days in rebased.items() for day in days]
    for symbol, day in sorted([*plan.touched, *split_days]):
        if symbol not in plan.whole:
            ranges[symbol] = (ranges.get(symbol, (day, day))[0], day)
    rows = [{"symbol": symbol, "first": str(first), "last": str(last)} for symbol, (first, last) in ranges.items()]
    if not rows:
        return small_frame(spark, [], COLUMNS)
    tasks = -(-len(rows) // SYMBOLS_PER_TASK)
    frame = small_frame(spark, rows, "symbol string, first date, last date").repartition(tasks)
    return frame.mapInArrow(lambda batches: read_ranges(dsn, batches), COLUMNS)


def read_ranges(dsn: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the stored rows of every range (symbol, first, last) of a task's batches."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    kinds = [pa.string(), pa.date32(), *[pa.float64()] * 4, pa.int64(), pa.float64()]
    names = [part.split()[0] for part in COLUMNS.split(", ")]
    reading = pa_csv.ReadOptions(column_names=names)
    converting = pa_csv.ConvertOptions(column_types=dict(zip(names, kinds, strict=True)))
    with connect(dsn) as connection, warehouse_errors("read its daily bars"):
        for batch in batches:
            ranges = [sql.Literal(column.to_pylist()) for column in batch.columns]
            parts = dict(zip(("symbols", "firsts", "lasts"), ranges, strict=True))
            query = sql.SQL(QUERY).format(**parts, reach=sql.Literal(LONGEST_WINDOW))
            with connection.cursor().copy(sql.SQL("copy ({}) to stdout (format csv)").format(query)) as copy:
                found = b"".join(copy)
            if found:
                yield from pa_csv.read_csv(pa.py_buffer(found), reading, convert_options=converting).to_batches()
