"""Corporate actions in the lake: one Parquet file per symbol with every version of its splits and dividends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from barflow.errors import BarflowError
from barflow.lake.partitions import Lake
from barflow.market.actions import Action, Dividend, Split, Version

TABLE = "corporate_actions"
FILE_NAME = "actions.parquet"
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


def stage_actions(lake: Lake, part: str, symbol: str, versions: Sequence[Version]) -> int:
    """Stage a symbol's next file. Return its rows, as the file's footer counts them."""
    table = pa.Table.from_pylist([_row(item) for item in versions], SCHEMA)
    return lake.stage_file(part, actions_path(lake, symbol), table)


def promote_actions(lake: Lake, part: str, symbols: Iterable[str]) -> None:
    """Move the staged files of a part into place, each atomically."""
    lake.promote_files(part, [actions_path(lake, symbol) for symbol in symbols])


def read_actions(lake: Lake, symbol: str) -> list[Version]:
    """Return every version of a symbol's actions. Raise BarflowError for a missing or damaged file."""
    path = actions_path(lake, symbol)
    try:
        rows = pq.ParquetFile(path, filesystem=lake.files).read().cast(SCHEMA).to_pylist()
        return [_version(symbol, row) for row in rows]
    except (OSError, ValueError) as error:  # pyarrow.ArrowInvalid is a ValueError
        raise BarflowError(
            f"{path} is not a readable file of corporate actions ({error}). Nothing was changed. "
            "Run `barflow process --full`, then the same command again."
        ) from None


def symbols_with_actions(lake: Lake) -> list[str]:
    """Return the symbols that have a file, sorted."""
    selector = fs.FileSelector(f"{lake.root}/{TABLE}", allow_not_found=True, recursive=True)
    found = (info.path.split("/")[-2] for info in lake.files.get_file_info(selector) if info.base_name == FILE_NAME)
    return sorted(unquote(folder.removeprefix("symbol=")) for folder in found)


def count_actions(lake: Lake) -> dict[str, int]:
    """Return the rows of each symbol's file, as its footer counts them. Raise BarflowError for a damaged file."""

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
        return dict(zip(symbols, pool.map(rows, symbols), strict=True))


def _row(version: Version) -> dict[str, Any]:
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
