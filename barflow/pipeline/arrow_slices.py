"""Computed frames as Arrow tables in the driver, one slice of partitions at a time.

Spark 3.5 has no public call that returns Arrow. ``toPandas`` transfers Arrow, and its numbers and texts become Arrow
again almost without a copy. So dates and timestamps are transferred as numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

# About 30 MB of rows: far below spark.driver.maxResultSize, whose default is 1 GB.
ROWS_PER_SLICE = 200_000
# Slices that are fetched at the same time, while the caller uses one.
FETCHED_AHEAD = 2
AS_NUMBER = {"date": "unix_date", "timestamp": "unix_micros"}


@dataclass(frozen=True)
class Computed:
    """A frame whose rows Spark holds in its cache, and the number of rows of each of its partitions."""

    frame: DataFrame
    partitions: Mapping[int, int]

    @classmethod
    def of(cls, frame: DataFrame) -> Computed:
        """Compute a frame and keep its rows, in memory or else on disk."""
        from pyspark.sql.functions import spark_partition_id

        kept = frame.persist()
        counted = kept.groupBy(spark_partition_id().alias("partition")).count().collect()
        return cls(kept, {row["partition"]: row["count"] for row in counted})

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return sum(self.partitions.values())

    def slices(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of partitions with about ``ROWS_PER_SLICE`` rows, or with one partition."""
        first, rows = 0, 0
        for partition, count in sorted(self.partitions.items()):
            if rows and rows + count > ROWS_PER_SLICE:
                yield first, partition - 1
                first, rows = partition, 0
            rows += count
        if rows:
            yield first, max(self.partitions)


def arrow_slices(tables: Mapping[str, Computed]) -> Generator[tuple[str, pa.Table], None, None]:
    """Yield the rows of the tables by name, the smallest table first: its transfer is short, so the caller begins soon.

    The next slices are fetched while the caller uses one.
    """
    with ThreadPoolExecutor(FETCHED_AHEAD) as pool:
        waiting: deque[tuple[str, Future[pa.Table]]] = deque()
        for name, table in sorted(tables.items(), key=lambda item: item[1].rows):
            for first, last in table.slices():
                waiting.append((name, pool.submit(fetch, table.frame, first, last)))
                if len(waiting) > FETCHED_AHEAD:
                    following, fetched = waiting.popleft()
                    yield following, fetched.result()
        for following, fetched in waiting:
            yield following, fetched.result()


def fetch(frame: DataFrame, first: int, last: int) -> pa.Table:
    """Return the rows of a range of partitions. NaN becomes NULL."""
    import pyarrow as pa
    from pyspark.sql.functions import spark_partition_id

    kinds = {item.name: item.dataType.simpleString() for item in frame.schema}
    columns = [f"{AS_NUMBER[kind]}({name}) as {name}" if kind in AS_NUMBER else name for name, kind in kinds.items()]
    rows = frame.where(spark_partition_id().between(first, last)).selectExpr(*columns).toPandas()
    arrow = {name: pa.Array.from_pandas(rows[name]) for name in kinds}
    for name, kind in kinds.items():
        if kind == "date":
            arrow[name] = arrow[name].view(pa.date32())
        elif kind == "timestamp":
            arrow[name] = arrow[name].view(pa.timestamp("us", tz="UTC"))
    return pa.table(arrow)
