"""The lake: partitions as Parquet files, replaced atomically, and the manifests that announce them.

``{lake}/bars_5min/symbol=AAPL/month=2025-07/bars.parquet`` holds one symbol's exchange-local month, sorted by ts.
``{lake}/bars_5min_history/symbol=AAPL/month=2025-07/history.parquet`` holds the superseded versions of these bars, if
there are any, sorted by ts and known_from. A file is one object. It is staged under ``_staged``, which readers ignore,
then replaces the old one atomically (a rename on disk, a copy on S3), so a reader sees the old month or the new one.
The history is replaced first: who reads the bars and then the history misses no version, but may find one in both.
``{lake}/corporate_actions/symbol=AAPL/actions.parquet`` holds every version of a symbol's actions, replaced likewise.
``{lake}/manifests/RUN_ID.json`` is written last: a manifest means that the data is there.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from barflow.errors import BadInputError, BarflowError, UnavailableError
from barflow.lake.manifest_files import find_compacted
from barflow.lake.manifests import Manifest, run_of
from barflow.market.arrow import arrow_schema, history_schema

# How many files are counted together, and how many are looked for together.
FILES_PER_COUNT, FILES_PER_LOOK = 256, 4096
FILE_NAME, HISTORY_FILE_NAME = "bars.parquet", "history.parquet"
# Columns worth a dictionary. A dictionary of prices makes the file larger and slower to write.
REPEATED = ["session_date", "revision"]
# Columns that grow by similar steps: their differences take a fraction of the space.
STEADY = {"ts": "DELTA_BINARY_PACKED", "known_from": "DELTA_BINARY_PACKED"}
# How many requests wait for S3 at once.
THREADS = 16
Item = TypeVar("Item")
Result = TypeVar("Result")


class Lake:
    """One lake, on disk or on S3.

    ``uri`` is normalized: the lease and the ledger of the hop process use it as their key. Open one Lake per
    operating-system process.
    """

    def __init__(self, uri: str) -> None:
        try:
            if "://" in uri:
                self._fs, self.root = fs.FileSystem.from_uri(_in_one_request(uri.rstrip("/")))
            else:
                self._fs, self.root = fs.LocalFileSystem(), str(Path(uri).resolve())
        except (OSError, pa.ArrowInvalid) as error:
            raise BadInputError(f"lake {uri}: {error}. Give a folder or s3://bucket/prefix.") from None
        self.uri = self.root if self._on_disk else uri.rstrip("/")
        self._listed: dict[str, set[str]] = {}

    def path(self, symbol: str, month: str) -> str:
        """Return the path of a partition's file, as the file system names it."""
        return f"{self.root}/bars_5min/symbol={quote(symbol, safe='')}/month={month}/{FILE_NAME}"

    def history_path(self, symbol: str, month: str) -> str:
        """Return the path of the file of a partition's superseded versions, as the file system names it."""
        return f"{self.root}/bars_5min_history/symbol={quote(symbol, safe='')}/month={month}/{HISTORY_FILE_NAME}"

    def spark_path(self, symbol: str | None = None, month: str | None = None) -> str:
        """Return the path of a partition's file, or of the whole table, as Spark names it."""
        path = f"{self.root}/bars_5min" if symbol is None or month is None else self.path(symbol, month)
        return f"file://{path}" if self._on_disk else f"{self.uri.split('://')[0]}://{path}"

    def exists(self, symbol: str, month: str) -> bool:
        """Return whether the partition has a file."""
        path = self.path(symbol, month)
        if (listed := self._listed.get(symbol)) is not None:
            return path in listed
        return bool(self._fs.get_file_info(path).type == fs.FileType.File)

    def remember(self, symbols: Iterable[str]) -> None:
        """List the files of bars of these symbols once. Later reads of these symbols request only listed files.

        This is for the tasks of a run: it holds the hop's lease, so no file appears meanwhile.
        """
        tables = ("bars_5min", "bars_5min_history")
        asked = [
            (symbol, f"{self.root}/{table}/symbol={quote(symbol, safe='')}") for symbol in symbols for table in tables
        ]

        def paths(folder: str) -> set[str]:
            found = self._fs.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=True))
            return {info.path for info in found}

        for (symbol, _), found in zip(asked, self.in_threads(paths, [folder for _, folder in asked]), strict=True):
            self._listed.setdefault(symbol, set()).update(found)

    def read(self, symbol: str, month: str) -> pa.Table | None:
        """Return the partition's rows (schema of the lake, sorted by ts), or None if it has no file.

        A file of an earlier release has no known_from. Its bars get the time at which it was written, since they were
        known by then. Raises BarflowError for a damaged file.
        """
        return self._read(self.path(symbol, month), arrow_schema(), symbol)

    def read_history(self, symbol: str, month: str) -> pa.Table | None:
        """Return the superseded versions of the partition's bars, sorted by ts and known_from, or None without any.

        Raises BarflowError for a damaged file.
        """
        return self._read(self.history_path(symbol, month), history_schema(), symbol)

    def _read(self, path: str, schema: pa.Schema, symbol: str) -> pa.Table | None:
        if path not in self._listed.get(symbol, (path,)):
            return None
        try:
            with self._fs.open_input_file(path) as file:  # a request for its size, and one for all of it
                data = file.read_buffer()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            table = pq.ParquetFile(pa.BufferReader(data)).read()
            if "known_from" not in table.column_names:
                written = written_at(self._fs.get_file_info(path), table.num_rows)
                table = table.append_column("known_from", written)
            return table.select(schema.names).cast(schema)
        except (pa.ArrowInvalid, KeyError) as error:
            raise BarflowError(
                f"{path} is not a readable Parquet file ({error}). Nothing was changed. Restore its previous version. "
                "If MongoDB still has the whole month, move the file away instead and run `barflow process --full "
                f"--symbols {symbol}`."
            ) from None

    def stage(self, part: str, symbol: str, month: str, table: pa.Table) -> int:
        """Stage the partition's next file in ``part``: a run id, or a path that starts with one.

        Returns its rows, as the file's footer counts them.
        """
        return self.stage_file(part, self.path(symbol, month), table)

    def stage_file(self, part: str, path: str, table: pa.Table) -> int:
        """Stage the next file at a path of the lake. Return its rows, as the file's footer counts them."""
        path = self._staged(part, path)
        steady = {name: encoding for name, encoding in STEADY.items() if name in table.column_names}
        form = {"compression": "snappy", "use_dictionary": REPEATED, "column_encoding": steady}
        with _writing(path):
            if not self._on_disk:  # in one request, which S3 takes whole or not at all
                made = pa.BufferOutputStream()
                pq.write_table(table, made, **form)
                return self._put(path, made.getvalue())
            self._make_parent(path)
            pq.write_table(table, path, **form)
            self._sync(path)
            return int(pq.read_metadata(path).num_rows)

    def _put(self, path: str, data: pa.Buffer) -> int:
        """Write an object of Parquet. Return the rows that its footer counts."""
        with self._fs.open_output_stream(path) as stream:
            stream.write(data)
        return int(pq.read_metadata(pa.BufferReader(data)).num_rows)

    def promote(self, part: str, keys: Iterable[tuple[str, str]], histories: Iterable[tuple[str, str]] = ()) -> None:
        """Move the staged files of a part into place, each atomically: first the histories, then the bars."""
        self.move((part, self.history_path(symbol, month)) for symbol, month in histories)
        self.promote_files(part, [self.path(symbol, month) for symbol, month in keys])

    def promote_files(self, part: str, paths: Iterable[str]) -> None:
        """Move the staged files of a part to these paths, each atomically."""
        self.move((part, path) for path in paths)
        self.discard_staged(part)

    def move(self, files: Iterable[tuple[str, str]]) -> None:
        """Move staged files into place, each atomically: the part of each one, and its path in the lake."""
        self.in_threads(lambda file: self._promote(*file), files)

    def replace(self, symbol: str, month: str, table: pa.Table) -> None:
        """Stage and promote one partition. Raise UnavailableError if that fails; the old file stays then."""
        part = uuid.uuid4().hex
        self.stage(part, symbol, month, table)
        self.promote(part, [(symbol, month)])

    def discard_staged(self, part: str | None = None) -> None:
        """Remove the staged files of a part or run, or of all dead runs. The caller holds the hop's lease."""
        path = f"{self.root}/_staged" + (f"/{part}" if part else "")
        if self._fs.get_file_info(path).type == fs.FileType.Directory:
            self._fs.delete_dir(path)

    def publish(self, manifest: Manifest) -> str:
        """Write the manifest, the last step of a run. Return its path."""
        path = f"{self.root}/manifests/{manifest.run_id}.json"
        self.write(path, manifest.to_json())
        return path

    def write(self, path: str, body: bytes) -> None:
        """Write a file other than Parquet. A reader sees the old file or the whole new one."""
        # On disk, a rename makes the file appear whole; an S3 PUT is atomic.
        target = str(Path(path).with_name(f".{Path(path).name}.part")) if self._on_disk else path
        with _writing(path):
            self._make_parent(target)
            with self._fs.open_output_stream(target, compression=None) as stream:
                stream.write(body)
            self._sync(target)
            if self._on_disk:
                Path(target).replace(path)

    def manifest_ids(self) -> list[str]:
        """Return the run ids of the manifests that have their own file, oldest first.

        A run id starts with its time. Every manifest that waits for a load is among them, and the newest one.
        """
        selector = fs.FileSelector(f"{self.root}/manifests", allow_not_found=True)
        names = (info.base_name for info in self._fs.get_file_info(selector))
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def complete_until(self) -> datetime | None:
        """Return the moment (UTC) up to which the lake is complete: it holds every answer that was asked for before.

        None before the first manifest, and after one of an earlier release.
        """
        published = self.manifest_ids()
        # The ids of runs of the same second are in no order. Those of one run are.
        second = [name for name in published if name.split("-")[0] == published[-1].split("-")[0]]
        newest = map(self.manifest, {run_of(name): name for name in second}.values())
        return max(newest, key=lambda item: item.created_at).complete_until if published else None

    def manifest(self, run_id: str) -> Manifest:
        """Return one published manifest, of any age. Raise BarflowError if it is missing or damaged."""
        path = f"{self.root}/manifests/{run_id}.json"
        try:
            with self._fs.open_input_stream(path) as stream:
                return Manifest.from_json(stream.read())
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, FileNotFoundError) and (compacted := find_compacted(self, run_id)):
                return compacted
            raise BarflowError(
                f"manifest {path} cannot be read: {error}. Nothing was changed. "
                "Run `barflow process --full`, then `barflow aggregate --full`."
            ) from None

    def partitions(self, symbols: Iterable[str] | None = None) -> Iterator[tuple[str, str, str]]:
        """Yield (symbol, month, path) of every partition, of all or the given symbols."""
        table = f"{self.root}/bars_5min"
        roots = [table] if symbols is None else [f"{table}/symbol={quote(name, safe='')}" for name in symbols]
        for root in roots:
            for info in self._fs.get_file_info(fs.FileSelector(root, allow_not_found=True, recursive=True)):
                if info.base_name == FILE_NAME:
                    keys = dict(part.split("=", 1) for part in info.path.split("/") if "=" in part)
                    yield unquote(keys["symbol"]), keys["month"], info.path

    def session_counts(self, symbols: Iterable[str] | None = None) -> Iterator[tuple[str, str, int, datetime]]:
        """Yield (symbol, session_date, rows, newest bar's open in UTC) per session, of all or the given symbols.

        They come in the order of the symbols. A few files at a time are in memory.
        """
        chosen = self.symbols() if symbols is None else symbols
        yield from self.count_files(path for _, _, path in self.partitions(chosen))

    def partition_counts(self, partitions: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, int, datetime]]:
        """Yield the counts of ``session_counts`` of those (symbol, month) partitions that have a file."""
        paths = [self.path(symbol, month) for symbol, month in partitions]
        for start in range(0, len(paths), FILES_PER_LOOK):
            infos = self._fs.get_file_info(paths[start : start + FILES_PER_LOOK])
            yield from self.count_files(info.path for info in infos if info.type == fs.FileType.File)

    def symbols(self) -> list[str]:
        """Return the symbols that have bars, sorted."""
        selector = fs.FileSelector(f"{self.root}/bars_5min", allow_not_found=True)
        names = (info.base_name for info in self._fs.get_file_info(selector))
        return sorted(unquote(name.removeprefix("symbol=")) for name in names if name.startswith("symbol="))

    def count_files(self, paths: Iterable[str]) -> Iterator[tuple[str, str, int, datetime]]:
        """Yield the counts of ``session_counts`` from these files of ``partitions``, in their order."""
        remaining = iter(paths)
        while batch := list(islice(remaining, FILES_PER_COUNT)):
            yield from self._count(batch)

    def _count(self, paths: list[str]) -> Iterator[tuple[str, str, int, datetime]]:
        import pyarrow.dataset as ds  # imports pandas, which tasks that write do not need

        try:
            bars = ds.dataset(
                paths,
                schema=arrow_schema().append(pa.field("symbol", pa.string())),
                filesystem=self._fs,
                format="parquet",
                partitioning=ds.partitioning(pa.schema([("symbol", pa.string())]), flavor="hive"),
                partition_base_dir=f"{self.root}/bars_5min",
            )
            rows = bars.to_table(columns=["symbol", "session_date", "ts"])
        except pa.ArrowInvalid as error:
            raise BarflowError(
                f"Cannot read a Parquet file of {self.uri}: {error}. Nothing was changed. Restore its previous version."
            ) from None
        # Threads would mix the order of the groups.
        grouped = rows.group_by(["symbol", "session_date"], use_threads=False)
        counted = grouped.aggregate([("ts", "count"), ("ts", "max")])
        for row in counted.to_pylist():
            yield row["symbol"], row["session_date"].isoformat(), row["ts_count"], row["ts_max"]

    @property
    def waits(self) -> bool:
        """Return whether a request to the lake waits for a network."""
        return not self._on_disk

    def in_threads(self, work: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS) -> list[Result]:
        """Return the results of work that waits for the file system, in order. Raise the first error."""
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))

    @property
    def files(self) -> fs.FileSystem:
        """Return the file system of the lake."""
        return self._fs

    @property
    def _on_disk(self) -> bool:
        return isinstance(self._fs, fs.LocalFileSystem)

    def _staged(self, part: str, path: str) -> str:
        return path.replace(self.root, f"{self.root}/_staged/{part}", 1)

    def _promote(self, part: str, target: str) -> None:
        source = self._staged(part, target)
        with _writing(target):
            self._make_parent(target)
            if self._on_disk:
                Path(source).replace(target)
            else:
                self._fs.copy_file(source, target)

    def _make_parent(self, path: str) -> None:
        if self._on_disk:
            Path(path).parent.mkdir(parents=True, exist_ok=True)

    def _sync(self, path: str) -> None:
        """Flush the data to disk before the rename that publishes it."""
        if self._on_disk:
            with open(path, "rb") as written:  # noqa: PTH123
                os.fsync(written.fileno())


def written_at(file: fs.FileInfo, rows: int) -> pa.Array:
    """Return for each row of a file the time at which the file was written (UTC)."""
    moment = pa.scalar(file.mtime_ns // 1000, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    return pa.repeat(moment, rows)


def _in_one_request(uri: str) -> str:
    """Return the URI with which PyArrow writes a small file in one request, and not as an upload in parts."""
    if not uri.startswith(("s3://", "s3a://")):
        return uri
    return uri.replace("s3a://", "s3://", 1) + ("&" if "?" in uri else "?") + "allow_delayed_open=true"


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"could not write {path}: {error.strerror or error}. Every file that readers see is complete. "
            "Free disk space, or fix the permissions of the folder or bucket, then run `barflow process` again."
        ) from None
