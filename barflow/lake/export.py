"""Exports of the archive: bars of many symbols in a file or a folder, as they were known at a moment.

Each export has a manifest, which states what it holds, so that a study can cite it. Two exports as of the same moment
are the same byte for byte, whenever they are made, if the archive was complete until that moment. One symbol is in
memory at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from barflow.errors import BadInputError
from barflow.lake.export_manifest import Holding, Written, find_gaps, manifest_of, manifest_text, moment_text
from barflow.lake.manifest_files import ids_until
from barflow.lake.partitions import Lake
from barflow.lake.query import Query, read_share
from barflow.lake.series import Share, find_share, read_series
from barflow.lake.targets import Target
from barflow.market.bars import INTERVAL
from barflow.market.instruments import Instruments
from barflow.text import counted

FILE_NAME = "bars.parquet"
# Runs of one second have ids in no order, and the newest may have published later than the moment.
RECENT = 5
# The most symbols that a message names.
NAMED = 5


def export(
    lake: Lake,
    symbols: Iterable[str],
    query: Query,
    target: Target,
    *,
    instruments: Instruments | None = None,
    on_symbol: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the bars of present symbols that a query asks for, and the manifest. Return it as a JSON object.

    The query must have an ``as_of``. A file holds all symbols in order. A folder holds a file for each symbol,
    ``symbol=AAPL/bars.parquet``, without the column ``symbol``. ``on_symbol`` is called after each symbol.

    Raises:
        BadInputError: The archive has no bars of a symbol, or none in the range of all of them as of the moment.
        BarflowError: The target cannot be written, or an action cannot be applied.
    """
    instruments = instruments or Instruments()
    shares = _shares(lake, symbols, instruments)
    holdings: list[Holding] = []
    with target.making() as made:
        with _Files(target, made) as files:
            for share in shares:
                table, actions = read_share(lake, share, query)
                files.write(share.symbol, table)
                bars = _bars_by_session(lake, share, query, table)
                gaps = find_gaps(instruments, share.symbol, query.first, query.last, bars, as_of(query))
                holdings.append(Holding(share.symbol, table.num_rows, bars, actions, gaps))
                on_symbol(share.symbol)
        if not any(item.rows for item in holdings):
            raise BadInputError(_nothing(lake, shares, query))
        with target.writing():
            manifest = manifest_of(_asked(lake, query), holdings, files.written())
            target.manifest_of(made).write_text(manifest_text(manifest))
    return manifest


def as_of(query: Query) -> datetime:
    """Return the moment of a query, which it must have."""
    assert query.as_of is not None
    return query.as_of


def _asked(lake: Lake, query: Query) -> dict[str, Any]:
    """Return what a manifest states of the query."""
    complete_until = _complete_until(lake, as_of(query))
    return {
        "as_of": moment_text(as_of(query)),
        "complete_until": complete_until and moment_text(complete_until),
        "interval": query.interval,
        "adjust": query.adjust,
        "start": query.first,
        "end": query.last,
    }


def _complete_until(lake: Lake, moment: datetime) -> datetime | None:
    """Return until when the archive was complete, as its manifests stated at a moment. None: they did not state it."""
    recent = map(lake.manifest, ids_until(lake, moment, RECENT))
    return max(
        (item.complete_until for item in recent if item.complete_until and item.created_at <= moment), default=None
    )


def _shares(lake: Lake, symbols: Iterable[str], instruments: Instruments) -> list[Share]:
    """Return the shares by symbol. Raise BadInputError that names those without bars."""
    shares = [find_share(lake, instruments, symbol) for symbol in sorted(symbols)]
    if missing := [share.symbol for share in shares if not share.parts]:
        raise BadInputError(
            f"the archive {lake.uri} has no bars of {_some(missing)}. Nothing was written. Check the spelling, or "
            "fetch them with `barflow backfill` and run `barflow process`."
        )
    return shares


def _bars_by_session(lake: Lake, share: Share, query: Query, table: pa.Table) -> dict[date, int]:
    """Return how many 5-minute bars each session has of those that a table was made of."""
    if query.interval != INTERVAL:
        table = read_series(lake, share, query.first, query.last, columns=(), as_of=query.as_of)
    return {item["values"]: item["counts"] for item in pc.value_counts(table["session_date"]).to_pylist()}


def _nothing(lake: Lake, shares: Sequence[Share], query: Query) -> str:
    """Return why an export would be empty."""
    span = f"{_some([share.symbol for share in shares])} from {query.first} to {query.last}"
    tables = [read_series(lake, share, query.first, query.last, columns=("known_from",)) for share in shares]
    if arrived := [pc.min(table["known_from"]).as_py() for table in tables if table.num_rows]:
        return (
            f"as of {moment_text(as_of(query))}, no bars were known of {span}: the first one became known at "
            f"{moment_text(min(arrived))}. Nothing was written. Choose a later --as-of."
        )
    return f"the archive has no bars of {span}. Nothing was written. Run `barflow status` to see what it has."


def _some(symbols: Sequence[str]) -> str:
    more = f" and {counted(len(symbols) - NAMED, 'other')}" if len(symbols) > NAMED else ""
    return ", ".join(symbols[:NAMED]) + more


class _Files:
    """The data files of an export while it is made: one for all symbols, or one for each symbol in a folder."""

    def __init__(self, target: Target, made: Path) -> None:
        self.target, self.made = target, made
        self._writer: Any = None
        self._paths: list[Path] = []

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, symbol: str, table: pa.Table) -> None:
        """Write the bars of one symbol. Equal bars are written as equal bytes."""
        if not table.num_rows:
            return
        # A page of a large Parquet file may end where a piece of the table ends.
        table = table.replace_schema_metadata(None).combine_chunks()
        with self.target.writing():
            if self.target.form == "folder":
                self._close()
                table = table.drop("symbol")
                self._open(self.made / f"symbol={quote(symbol, safe='')}" / FILE_NAME, table.schema)
            elif self._writer is None:
                self._open(self.made, table.schema)
            self._writer.write_table(table)

    def written(self) -> Iterator[Written]:
        """Yield the files with their digests, and flush each to disk."""
        for path in self._paths:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            inside = path.relative_to(self.made).as_posix() if path != self.made else ""
            yield Written(inside, path.stat().st_size, digest)

    def _open(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(exist_ok=True)
        self._paths.append(path)
        self._writer = (pa_csv.CSVWriter if self.target.form == "csv" else pq.ParquetWriter)(path, schema)

    def _close(self) -> None:
        if self._writer is not None:
            with self.target.writing():
                self._writer.close()
            self._writer = None
