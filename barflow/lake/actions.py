"""Corporate actions in the lake: one Parquet file per symbol with every version of its splits and dividends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from barflow.errors import BarflowError
from barflow.lake.bar_files import reading
from barflow.lake.partitions import Lake
from barflow.market.actions import KINDS, Action, Dividend, Kind, Split, Version

TABLE = "corporate_actions"
FILE_NAME = "actions.parquet"
# The file's metadata names the kinds that were fetched or imported: a share without dividends has no row of them.
KINDS_KEY = b"barflow.kinds"
SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("ex_date", pa.date32(), nullable=False),
        pa.field("ratio", pa.float64()),
        pa.field("amount", pa.float64()),
        pa.field("currency", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("known_from", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("known_until", pa.timestamp("us", tz="UTC")),
    ]
)


def actions_path(lake: Lake, symbol: str) -> str:
    """Return the path of a symbol's file, as the file system names it."""
    return f"{lake.root}/{TABLE}/symbol={quote(symbol, safe='')}/{FILE_NAME}"


@dataclass(frozen=True)
class Archived:
    """What the archive has of a symbol's actions: every version, and the kinds that were ever fetched or imported."""

    versions: tuple[Version, ...] = ()
    kinds: frozenset[Kind] = frozenset()

    def known_at(self, moment: datetime | None) -> list[Version]:
        """Return the versions that were known at a moment (UTC), or the current ones, oldest ex-date first."""
        return [item for item in self.versions if _is_known(item, moment)]


def _is_known(version: Version, moment: datetime | None) -> bool:
    until = version.known_until
    if moment is None:
        return until is None
    return version.action.known_from <= moment and (until is None or moment < until)


def stage_actions(lake: Lake, part: str, symbol: str, versions: Sequence[Version], kinds: Iterable[Kind]) -> int:
    """Stage a symbol's next file. ``kinds`` were fetched or imported. Return its rows, as the file's footer counts."""
    table = pa.Table.from_pylist([action_row(item) for item in versions], SCHEMA)
    table = table.replace_schema_metadata({KINDS_KEY: ",".join(sorted(kinds))})
    return lake.stage_file(part, actions_path(lake, symbol), table)


def promote_actions(lake: Lake, part: str, symbols: Iterable[str]) -> None:
    """Move the staged files of a part into place, each atomically."""
    lake.promote_files(part, [actions_path(lake, symbol) for symbol in symbols])


def read_actions(lake: Lake, symbol: str) -> Archived:
    """Return what the archive has of a symbol's actions. Raise BarflowError for a missing or damaged file.

    A file of an earlier release does not name its kinds: they are those of its versions.
    """
    path = actions_path(lake, symbol)
    with reading(lake, path):
        table = pq.ParquetFile(path, filesystem=lake.files).read()
        named = (table.schema.metadata or {}).get(KINDS_KEY, b"").decode().split(",")
        versions = tuple(_version(symbol, row) for row in table.cast(SCHEMA).to_pylist())
    found = {item.action.kind for item in versions}
    return Archived(versions, frozenset(kind for kind in KINDS if kind in named or kind in found))


def find_actions(lake: Lake, symbol: str) -> Archived:
    """Return what the archive has of a symbol's actions: nothing if it has no file. Raise like ``read_actions``."""
    path = actions_path(lake, symbol)
    with reading(lake, path):
        held = lake.files.get_file_info(path).type == fs.FileType.File
    return read_actions(lake, symbol) if held else Archived()


def symbols_with_actions(lake: Lake) -> list[str]:
    """Return the symbols that have a file, sorted."""
    selector = fs.FileSelector(f"{lake.root}/{TABLE}", allow_not_found=True, recursive=True)
    found = (info.path.split("/")[-2] for info in lake.files.get_file_info(selector) if info.base_name == FILE_NAME)
    return sorted(unquote(folder.removeprefix("symbol=")) for folder in found)


def count_actions(lake: Lake) -> dict[str, int]:
    """Return the rows of each file that has any, by symbol, as its footer counts them.

    Raises BarflowError for a damaged file.
    """

    def rows(symbol: str) -> int:
        path = actions_path(lake, symbol)
        try:
            return int(pq.read_metadata(path, filesystem=lake.files).num_rows)
        except (OSError, pa.ArrowInvalid) as error:
            raise BarflowError(
                f"{path} is not a readable Parquet file ({error}). Nothing was changed. Run `barflow process --full`."
            ) from None

    symbols = symbols_with_actions(lake)
    with ThreadPoolExecutor(16) as pool:
        return {symbol: count for symbol, count in zip(symbols, pool.map(rows, symbols), strict=True) if count}


def action_row(version: Version) -> dict[str, Any]:
    """Return a version as a row of the file."""
    action = version.action
    is_split = isinstance(action, Split)
    return {
        "kind": action.kind,
        "ex_date": action.ex_date,
        "ratio": action.value if is_split else None,
        "amount": None if is_split else action.value,
        "currency": action.currency if isinstance(action, Dividend) else None,
        "source": action.source,
        "known_from": action.known_from,
        "known_until": version.known_until,
    }


def _version(symbol: str, row: dict[str, Any]) -> Version:
    known = row["source"], row["known_from"]
    action: Action
    if row["kind"] == "split":
        action = Split(symbol, row["ex_date"], row["ratio"], *known)
    else:
        action = Dividend(symbol, row["ex_date"], row["amount"], row["currency"], *known)
    return Version(action, row["known_until"])
