"""The archive on AWS: partitions read from S3 and counts from Athena, both through awswrangler.

Athena counts bars from two columns of each file, so no file of the catalog is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.parse import quote, unquote

import pyarrow as pa

from barflow.errors import UnavailableError
from barflow.lake.partitions import Lake
from barflow.market.arrow import arrow_schema
from barflow.settings import Settings

# The catalog's table of the archive. The catalog may hold a symbol percent-encoded, as in its path.
COUNTS = """
select symbol, session_date, count(*) as bars, max(ts) as newest
from bars_5min
where symbol in ({symbols}) and month in ({months})
group by symbol, session_date
"""
# How many symbols one query counts. Its answer is in memory.
SYMBOLS_PER_QUERY = 100


def open_archive(settings: Settings) -> Lake:
    """Open the lake of these settings for reading. Raise BadInputError if they name none or an invalid one."""
    uri = settings.require("lake_uri")
    if not uri.startswith("s3://"):
        return Lake(uri)
    return AwsArchive(uri, settings.athena_database, settings.athena_workgroup)


class AwsArchive(Lake):
    """A lake on S3. Without an Athena database and workgroup, it counts bars like any other lake."""

    def __init__(self, uri: str, database: str | None, workgroup: str | None) -> None:
        super().__init__(uri)
        self.database, self.workgroup = database, workgroup

    def read(self, symbol: str, month: str) -> pa.Table | None:
        """Return the partition's rows (schema of the lake, sorted by ts), or None if it has no file."""
        import awswrangler as wr

        try:
            with _reading(f"the bars of {symbol} in {month}"):
                frame = wr.s3.read_parquet(
                    f"{self.uri}/bars_5min/symbol={quote(symbol, safe='')}/",
                    dataset=True,
                    partition_filter=lambda partition: partition["month"] == month,
                    dtype_backend="pyarrow",
                )
        except wr.exceptions.NoFilesFound:
            return None
        schema = arrow_schema()
        return pa.Table.from_pandas(frame[schema.names], schema, preserve_index=False)

    def session_counts(self, symbols: Iterable[str] | None = None) -> Iterator[tuple[str, str, int, datetime]]:
        """Yield (symbol, session_date, rows, newest bar's open in UTC) per session, of all or the given symbols.

        They come in the order of the symbols.
        """
        names = list(symbols) if symbols is not None else self.symbols()
        for start in range(0, len(names), SYMBOLS_PER_QUERY):
            group = names[start : start + SYMBOLS_PER_QUERY]
            found = list(self.partition_counts([(symbol, month) for symbol, month, _ in self.partitions(group)]))
            place = {symbol: number for number, symbol in enumerate(group)}
            yield from sorted(found, key=lambda row: place[row[0]])

    def partition_counts(self, partitions: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, int, datetime]]:
        """Yield the counts of ``session_counts`` of those (symbol, month) partitions that have a file.

        Athena counts the partitions of the catalog. A new month is not in the catalog until the lake's crawler has run;
        its files are read instead.
        """
        if not self.database or not self.workgroup:
            yield from super().partition_counts(partitions)
            return
        wanted, counted = set(partitions), set()
        names = list(dict.fromkeys(symbol for symbol, _ in partitions))
        for start in range(0, len(names), SYMBOLS_PER_QUERY):
            group = set(names[start : start + SYMBOLS_PER_QUERY])
            months = {month for symbol, month in wanted if symbol in group}
            for row in self._query(group, months):
                key = row[0], row[1][:7]
                if key in wanted:
                    counted.add(key)
                    yield row
        yield from super().partition_counts([key for key in partitions if key not in counted])

    def _query(self, symbols: Set[str], months: Set[str]) -> Iterator[tuple[str, str, int, datetime]]:
        import awswrangler as wr

        with _reading("the counts of the archive"):
            frame = wr.athena.read_sql_query(
                counts_query(symbols, months),
                self.database,
                workgroup=self.workgroup,
                ctas_approach=False,
                dtype_backend="pyarrow",
            )
        for row in frame.to_dict("records"):
            newest = row["newest"].to_pydatetime().replace(tzinfo=UTC)
            yield unquote(row["symbol"]), row["session_date"].isoformat(), row["bars"], newest


def counts_query(symbols: Iterable[str], months: Iterable[str]) -> str:
    """Return the query of the counts of some symbols in some months."""
    names = {form for symbol in symbols for form in (symbol, quote(symbol, safe=""))}
    return COUNTS.format(symbols=_listed(names), months=_listed(months))


def _listed(values: Iterable[str]) -> str:
    """Return values as the list of an SQL condition."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in sorted(values))


@contextmanager
def _reading(what: str) -> Iterator[None]:
    import awswrangler as wr
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, wr.exceptions.QueryFailed, wr.exceptions.QueryCancelled) as error:
        reason = f"{error}"[:300]
        raise UnavailableError(
            f"{what} could not be read ({reason}). Check the role's permissions and that the lake's crawler has run."
        ) from None
