"""The lake: where a partition lies, how it is read and replaced, and the manifests that announce it.

``{lake}/bars_5min/symbol=AAPL/month=2025-07/bars.parquet`` holds one symbol's exchange-local month, sorted by
ts. A partition is one object that is replaced as a whole: by rename on a disk, by PUT on S3, both atomic, so a
reader sees the old month or the new one and never a part. ``{lake}/manifests/RUN_ID.json`` is written last: a
manifest means that the data is there.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from barflow.bars import arrow_schema
from barflow.errors import BadInputError, BarflowError, UnavailableError

FILE_NAME = "bars.parquet"


@dataclass(frozen=True)
class Partition:
    """One (symbol, month) that a run wrote. ``rows`` counts the whole file; ``versions`` names the sessions that
    changed in it, with the version of the staged document that was written."""

    symbol: str
    month: str
    rows: int
    versions: dict[str, int] = field(default_factory=dict)

    @property
    def sessions(self) -> list[str]:
        return sorted(self.versions)


@dataclass(frozen=True)
class Manifest:
    """What one process run published."""

    run_id: str
    created_at: datetime
    partitions: tuple[Partition, ...]

    @property
    def rows(self) -> int:
        return sum(partition.rows for partition in self.partitions)

    def to_json(self) -> bytes:
        partitions = [{**asdict(item), "sessions": item.sessions} for item in self.partitions]
        body = {
            "run_id": self.run_id,
            "created_at": self.created_at.isoformat(),
            "partitions": partitions,
            "rows": self.rows,
        }
        return json.dumps(body, indent=1).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Manifest:
        read: dict[str, Any] = json.loads(body)
        partitions = tuple(
            Partition(
                item["symbol"],
                item["month"],
                item["rows"],
                item.get("versions") or dict.fromkeys(item["sessions"], 0),
            )
            for item in read["partitions"]
        )
        return cls(read["run_id"], datetime.fromisoformat(read["created_at"]), partitions)


class Lake:
    """One lake, on a disk or on S3. Picklable by its URI; open one per process."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        try:
            if "://" in self.uri:
                self._fs, self.root = fs.FileSystem.from_uri(self.uri.replace("s3a://", "s3://"))
            else:
                self._fs, self.root = fs.LocalFileSystem(), str(Path(self.uri).resolve())
        except (OSError, pa.ArrowInvalid) as error:
            raise BadInputError(f"lake {uri}: {error}. Give a folder or s3://bucket/prefix.") from None

    def path(self, symbol: str, month: str) -> str:
        """Where a partition's file lies, in the file system's own terms."""
        return f"{self.root}/bars_5min/symbol={quote(symbol, safe='')}/month={month}/{FILE_NAME}"

    def read(self, symbol: str, month: str) -> pa.Table | None:
        """The partition's rows (schema of barflow.bars, sorted by ts), or None where there is none."""
        path = self.path(symbol, month)
        if self._fs.get_file_info(path).type == fs.FileType.NotFound:
            return None
        try:
            return pq.read_table(path, filesystem=self._fs, partitioning=None, schema=arrow_schema())
        except pa.ArrowInvalid as error:
            raise BarflowError(
                f"{path} is not a readable Parquet file ({error}). Nothing was changed. "
                "Move it away and run `barflow process --full --symbols " + symbol + "`."
            ) from None

    def replace(self, symbol: str, month: str, table: pa.Table) -> None:
        """Puts the table in the partition's place, atomically. Raises UnavailableError; the old file stays then."""
        path = self.path(symbol, month)
        self._write(path, lambda target: pq.write_table(table, target, filesystem=self._fs, compression="snappy"))

    def publish(self, manifest: Manifest) -> str:
        """Writes the manifest, the last act of a run. Returns its path."""
        path = f"{self.root}/manifests/{manifest.run_id}.json"

        def put(target: str) -> None:
            with self._fs.open_output_stream(target) as stream:
                stream.write(manifest.to_json())

        self._write(path, put)
        return path

    def manifest_ids(self) -> list[str]:
        """The run ids of all published manifests, oldest first (a run id starts with its time)."""
        selector = fs.FileSelector(f"{self.root}/manifests", allow_not_found=True)
        names = (info.base_name for info in self._fs.get_file_info(selector))
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def manifest(self, run_id: str) -> Manifest:
        """One published manifest. Raises BarflowError when it is missing or damaged."""
        path = f"{self.root}/manifests/{run_id}.json"
        try:
            with self._fs.open_input_stream(path) as stream:
                return Manifest.from_json(stream.read())
        except (OSError, ValueError, KeyError) as error:
            raise BarflowError(f"manifest {path} cannot be read: {error}. Run `barflow process --full`.") from None

    def partitions(self, symbols: Iterable[str] | None = None) -> Iterator[tuple[str, str, str]]:
        """(symbol, month, path) of every partition there is, of all symbols or of those named."""
        table = f"{self.root}/bars_5min"
        roots = [table] if symbols is None else [f"{table}/symbol={quote(name, safe='')}" for name in symbols]
        for root in roots:
            for info in self._fs.get_file_info(fs.FileSelector(root, allow_not_found=True, recursive=True)):
                if info.base_name == FILE_NAME:
                    keys = dict(part.split("=", 1) for part in info.path.split("/") if "=" in part)
                    yield unquote(keys["symbol"]), keys["month"], info.path

    def _write(self, path: str, write: Any) -> None:
        on_disk = isinstance(self._fs, fs.LocalFileSystem)
        # A dot keeps an unfinished file out of every reader's glob; an S3 PUT is atomic by itself.
        target = f"{Path(path).parent}/.{uuid.uuid4().hex}.tmp" if on_disk else path
        try:
            if on_disk:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            write(target)
            if on_disk:
                with open(target, "rb") as written:  # noqa: PTH123
                    os.fsync(written.fileno())
                Path(target).replace(path)
        except OSError as error:
            if on_disk:
                Path(target).unlink(missing_ok=True)
            raise UnavailableError(
                f"could not write {path}: {error}. The file that was there is unchanged. "
                "Free space or mend access, then run the hop again."
            ) from None
