"""Files of bars in the archive: which ones a symbol has, and the columns that a reader needs of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from barflow.errors import BarflowError, UnavailableError
from barflow.lake.partitions import FILE_NAME, HISTORY_FILE_NAME, Lake, written_at

BARS, HISTORY = "bars_5min", "bars_5min_history"
# Other files are not the archive's: file managers leave some in every folder.
NAMES, SYMBOL = (FILE_NAME, HISTORY_FILE_NAME), "symbol="


def symbols_of(lake: Lake) -> list[str]:
    """Return every symbol under which the archive has bars, sorted."""
    folder = f"{lake.root}/{BARS}"
    with reading(lake, folder):
        found = lake.files.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    folders = (info.base_name for info in found if info.type == fs.FileType.Directory)
    return sorted(unquote(name.removeprefix(SYMBOL)) for name in folders if name.startswith(SYMBOL))


def files_of(lake: Lake, table: str, symbol: str) -> dict[str, fs.FileInfo]:
    """Return the file of each month (``2025-07``) that the archive has under exactly this symbol."""
    folder = f"{lake.root}/{table}/symbol={quote(symbol, safe='')}"
    with reading(lake, folder):
        found = lake.files.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=True))
    return {
        info.path.split("/month=")[1].split("/")[0]: info
        for info in found
        if info.type == fs.FileType.File and info.base_name in NAMES and "/month=" in info.path
    }


def read_columns(lake: Lake, file: fs.FileInfo, schema: pa.Schema) -> pa.Table:
    """Return the columns of ``schema`` from a file, and read no other column.

    In a file of an earlier release, known_from is the time at which the file was written. Raises BarflowError
    for a damaged file.
    """
    with reading(lake, file.path):
        with pq.ParquetFile(file.path, filesystem=lake.files) as opened:
            held = set(opened.schema_arrow.names)
            bars = opened.read([name for name in schema.names if name in held], use_threads=False)
        if "known_from" in schema.names and "known_from" not in held:
            bars = bars.append_column("known_from", written_at(file, bars.num_rows))
        bars = bars.select(schema.names)
        return bars if bars.schema.equals(schema) else bars.cast(schema)


def on_disk(lake: Lake) -> bool:
    """Return whether the lake is a folder."""
    return isinstance(lake.files, fs.LocalFileSystem)


@contextmanager
def reading(lake: Lake, path: str) -> Iterator[None]:
    """Raise UnavailableError or BarflowError, with the path, when the block cannot read it."""
    try:
        yield
    except (OSError, KeyError, ValueError) as error:  # pyarrow.ArrowInvalid is a ValueError
        reason = f"{error}"[:300]
        if isinstance(error, OSError) and not on_disk(lake):
            raise UnavailableError(
                f"{path} could not be read ({reason}). Check your AWS credentials, their permissions and the network."
            ) from None
        raise BarflowError(
            f"{path} could not be read ({reason}). Nothing was changed. Check the permissions of the file. If it is "
            "damaged, restore its previous version. If MongoDB still has the whole month, move the file away instead "
            "and run `barflow process --full`."
        ) from None
