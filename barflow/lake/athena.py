"""The archive on AWS: partitions read from S3 and counts from Athena, both through awswrangler.

Athena counts bars from two columns of each file, so no file of the catalog is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
group by symbol, session_date
"""


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

        Athena counts the partitions of the catalog. A new month is not in the catalog until the lake's crawler has run;
        its files are read instead.
        """
        if not self.database or not self.workgroup:
            yield from super().session_counts(symbols)
            return
        import awswrangler as wr

        wanted = None if symbols is None else set(symbols)
        counted = set()
        with _reading("the counts of the archive"):
            frame = wr.athena.read_sql_query(
                COUNTS, self.database, workgroup=self.workgroup, ctas_approach=False, dtype_backend="pyarrow"
            )
        for row in frame.to_dict("records"):
            symbol, day = unquote(row["symbol"]), row["session_date"].isoformat()
            counted.add((symbol, day[:7]))
            if wanted is None or symbol in wanted:
                newest = row["newest"].to_pydatetime().replace(tzinfo=UTC)
                yield symbol, day, row["bars"], newest
        found = self.partitions(None if wanted is None else sorted(wanted))
        yield from self.count_files([path for symbol, month, path in found if (symbol, month) not in counted])


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
