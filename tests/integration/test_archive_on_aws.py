"""The archive on S3 returns the same bars and counts as one on a disk, tested on moto's S3 and Athena over HTTP.

moto does not run queries. DuckDB runs them on the same files, and moto returns its result as Athena's.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import boto3
import bson
import duckdb
import pyarrow as pa
import pytest
import requests
from moto_server import moto_server
from pyarrow import fs

import barflow
from barflow.errors import BadInputError, UnavailableError
from barflow.lake.athena import counts_query, open_archive
from barflow.lake.export import export
from barflow.lake.manifests import Manifest, Partition
from barflow.lake.partitions import Lake
from barflow.lake.query import Query
from barflow.lake.targets import Target
from barflow.market.arrow import arrow_schema
from barflow.market.sessions import BAR, session, sessions_between, utc_now
from barflow.pipeline import partition_tasks
from barflow.pipeline.process import promote
from barflow.settings import load_settings
from barflow.staging.connection import Document

# BRK/B has a slash, which its path percent-encodes.
SYMBOLS = ("AAPL", "BRK/B")
DAYS = (date(2025, 6, 30), date(2025, 7, 2), date(2025, 7, 3))
MONTHS = {f"{day:%Y-%m}" for day in DAYS}


def bars(symbol: str, *days: date) -> pa.Table:
    """Return synthetic bars of whole sessions."""
    rows: dict[str, list[Any]] = {name: [] for name in arrow_schema().names}
    for day in days:
        traded = session(day)
        assert traded is not None
        for number, ts in enumerate(traded.slots):
            price = 100.0 + number / 4 + len(symbol)
            values = (ts, day, price, price + 1.5, price - 1.25, price + 0.5, 1000 + number, 0, ts + BAR)
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    return pa.table(rows, arrow_schema())


def fill(lake: Lake) -> Lake:
    for symbol in SYMBOLS:
        lake.replace(symbol, "2025-06", bars(symbol, DAYS[0]))
        lake.replace(symbol, "2025-07", bars(symbol, *DAYS[1:]))
    return lake


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """Start moto with a bucket and a workgroup for every AWS client of this process. Yield its endpoint."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with moto_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "emulator",
            "AWS_SECRET_ACCESS_KEY": "emulator",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        boto3.setup_default_session()
        boto3.client("s3").create_bucket(Bucket="lake")
        results = {"OutputLocation": "s3://lake/queries/"}
        boto3.client("athena").create_work_group(
            Name="barflow-dev",
            Configuration={"ResultConfiguration": results, "EnforceWorkGroupConfiguration": True},
        )
        fill(Lake("s3://lake"))
        yield url
    boto3.setup_default_session()


@pytest.fixture
def archive(aws: str) -> Lake:
    settings = {"lake_uri": "s3://lake", "athena_database": "barflow_dev", "athena_workgroup": "barflow-dev"}
    return open_archive(load_settings(**settings))


@pytest.fixture
def on_disk(tmp_path: Path) -> Lake:
    return fill(Lake(str(tmp_path / "lake")))


def set_athena_result(endpoint: str, query: str, lake: Lake, symbol: Callable[[str], str] = str) -> None:
    """Run the query in DuckDB on the files of a lake on a disk. moto returns the result for the next query.

    ``symbol`` converts a symbol to its spelling in the catalog.
    """
    duckdb.sql("set timezone = 'UTC'")
    files = duckdb.read_parquet(f"{lake.root}/bars_5min/*/*/*.parquet", hive_partitioning=True)  # noqa: F841
    found = duckdb.sql(query.replace("bars_5min", "files"))
    kinds = {"symbol": "varchar", "session_date": "date", "bars": "bigint", "newest": "timestamp"}
    described = [
        {"Name": name, "Label": name, "Type": kinds[name], "Precision": 0, "Scale": 0, "Nullable": "UNKNOWN"}
        for name in found.columns
    ]
    symbol_rows = ([symbol(name), *map(_as_text, others)] for name, *others in found.fetchall())
    rows = [found.columns, *symbol_rows]
    result = {"rows": [{"Data": [{"VarCharValue": value} for value in row]} for row in rows], "column_info": described}
    body = {"account_id": "123456789012", "region": "us-east-1", "results": [result]}
    requests.post(f"{endpoint}/moto-api/static/athena/query-results", json=body, timeout=10).raise_for_status()


def _as_text(value: Any) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}.000" if isinstance(value, datetime) else str(value)


@pytest.mark.parametrize("symbol", [str, partial(quote, safe="")], ids=["plain", "percent-encoded"])
def test_athena_counts_equal_the_counts_of_the_files(
    aws: str, archive: Lake, on_disk: Lake, symbol: Callable[[str], str]
) -> None:
    set_athena_result(aws, counts_query(SYMBOLS, MONTHS), on_disk, symbol)
    counted = sorted(archive.session_counts())
    assert counted == sorted(on_disk.session_counts())
    assert ("BRK/B", "2025-07-03", 42, datetime(2025, 7, 3, 16, 55, tzinfo=UTC)) in counted


def test_counts_of_some_symbols_contain_no_others(aws: str, archive: Lake, on_disk: Lake) -> None:
    set_athena_result(aws, counts_query(["BRK/B"], MONTHS), on_disk)
    found = sorted(archive.session_counts(["BRK/B"]))
    assert found == sorted(on_disk.session_counts(["BRK/B"]))
    set_athena_result(aws, counts_query(["BRK/B", "NO"], ["2020-01", "2025-07"]), on_disk)
    assert sorted(archive.partition_counts([("BRK/B", "2025-07"), ("BRK/B", "2020-01"), ("NO", "2025-07")])) == [
        row for row in found if row[1] >= "2025-07"
    ]


def test_an_archive_on_s3_without_athena_is_counted_all_the_same(aws: str, on_disk: Lake) -> None:
    lake = open_archive(load_settings(lake_uri="s3://lake"))
    assert sorted(lake.session_counts()) == sorted(on_disk.session_counts())


def first_days() -> Query:
    """Return the query of the first two days, as they are known now."""
    return Query(DAYS[0], DAYS[1], adjust="none", as_of=utc_now())


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_an_export_from_s3_equals_one_from_a_disk(archive: Lake, on_disk: Lake, tmp_path: Path, symbol: str) -> None:
    for name, lake in (("s3", archive), ("disk", on_disk)):
        assert export(lake, [symbol], first_days(), Target.of(str(tmp_path / f"{name}.parquet")))["rows"] == 2 * 78
    assert (tmp_path / "s3.parquet").read_bytes() == (tmp_path / "disk.parquet").read_bytes()


def test_the_public_api_reads_s3_as_a_disk(aws: str, on_disk: Lake) -> None:
    assert barflow.symbols(lake="s3://lake") == [*SYMBOLS]
    for arguments in (
        {},
        {"interval": "1h", "columns": ["close", "vwap"]},
        {"adjust": "none", "as_of": "2025-07-02T18:00Z"},
    ):
        s3, disk = (
            barflow.read(SYMBOLS, DAYS[0], DAYS[1], lake=uri, **arguments)  # type: ignore[arg-type]
            for uri in ("s3://lake", on_disk.root)
        )
        assert (s3.num_rows > 20, s3) == (True, disk)
    with pytest.raises(BadInputError, match=r"there is no archive at s3://lake/empty: it has no folder bars_5min"):
        barflow.symbols(lake="s3://lake/empty")


def test_a_missing_month_or_symbol_is_reported(archive: Lake, tmp_path: Path) -> None:
    assert archive.read("AAPL", "2025-05") is None
    with pytest.raises(BadInputError, match="no bars of MSFT"):
        export(archive, ["MSFT"], first_days(), Target.of(str(tmp_path / "msft.csv")))


def test_an_unreachable_aws_raises_an_error_that_names_what_to_check(
    archive: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UnavailableError, match=r"counts of the archive could not be read \(.*http://127.0.0.1:9"):
        list(archive.session_counts())
    with pytest.raises(UnavailableError, match=r"lake/bars_5min/symbol=AAPL could not be read .* Check your AWS"):
        export(Lake("s3://lake"), ["AAPL"], first_days(), Target.of(str(tmp_path / "aapl.csv")))


def test_a_partition_on_s3_is_staged_replaced_and_published_as_on_a_disk(aws: str) -> None:
    lake = Lake("s3://lake/other")
    lake.stage("run-1", "AAPL", "2025-07", bars("AAPL", DAYS[1]))
    assert lake.read("AAPL", "2025-07") is None
    lake.promote("run-1", [("AAPL", "2025-07")])
    assert lake.read("AAPL", "2025-07") == bars("AAPL", DAYS[1])
    lake.replace("AAPL", "2025-07", bars("AAPL", *DAYS[1:]))
    assert lake.read("AAPL", "2025-07") == bars("AAPL", *DAYS[1:])
    manifest = Manifest("run-1", datetime.now(UTC), (Partition("AAPL", "2025-07", 120, {"2025-07-02": 1}),))
    lake.publish(manifest)
    assert [lake.manifest(run_id) for run_id in lake.manifest_ids()] == [manifest]
    names = boto3.client("s3").list_objects_v2(Bucket="lake", Prefix="other/_staged/run-1/")
    assert names["KeyCount"] == 0


class CountedFiles:
    """A file system that counts the calls that each ask S3 at least once."""

    def __init__(self, files: Any) -> None:
        self._files, self.calls = files, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._files, name)


def document(symbol: str, day: date, close: float = 1.0) -> Document:
    """Return a session as a task reads it from MongoDB: naive UTC datetimes."""
    table = bars(symbol, day).drop_columns(["session_date"])
    columns = {name: table[name].to_pylist() for name in table.column_names}
    ts = [moment.replace(tzinfo=None) for moment in columns["ts"]]
    moments = {"ts": ts, "known_from": [moment + close * BAR for moment in ts]}
    identity = {"_id": f"{symbol}|5min|{day}", "symbol": symbol, "session_date": str(day), "version": 1}
    return {**identity, **columns, **moments, "close": [close] * table.num_rows}


def test_a_task_asks_s3_for_few_things_and_stages_what_it_stages_on_a_disk(aws: str, tmp_path: Path) -> None:
    traded = [item.session_date for item in sessions_between(date(2025, 1, 1), date(2025, 3, 31))]
    versions = SimpleNamespace(of=lambda keys: {})

    def between(close: float, symbol: str, first: str, last: str) -> Iterator[bytes]:
        return (bson.encode(document(symbol, day, close)) for day in traded if first <= str(day) <= last)

    held: list[dict[tuple[str, str], pa.Table | None]] = []
    calls: list[Counter[str]] = []
    for uri in ("s3://lake/tasks", str(tmp_path / "lake")):
        for close in (1.0, 2.0):
            staging: Any = SimpleNamespace(raw_between=partial(between, close), versions=versions)
            lake = Lake(uri)
            counted = CountedFiles(lake._fs)
            lake._fs = counted if lake.waits else lake._fs
            chunk = [
                (("AAPL", f"2025-0{month}"), [str(day) for day in traded if day.month == month]) for month in (1, 2, 3)
            ]
            chunk.append((("MSFT", "2025-01"), [str(traded[0])]))
            written = partition_tasks._in_threads(staging, lake, "run/1", chunk)
            assert [(item.symbol, item.month) for item in written] == [key for key, _ in chunk]
            calls.append(Counter(counted.calls))
            if lake.waits:  # the ETag of an upload in parts has a dash
                key = lake.path("AAPL", "2025-01").replace("tasks/", "tasks/_staged/run/1/", 1).removeprefix("lake/")
                assert "-" not in boto3.client("s3").head_object(Bucket="lake", Key=key)["ETag"]
            promote(lake, written)
            lake.discard_staged("run")
            assert not lake.files.get_file_info(fs.FileSelector(f"{lake.root}/_staged/run", allow_not_found=True))
        held.append(
            {key: lake.read(*key) for key, _ in chunk} | {(*key, "past"): lake.read_history(*key) for key, _ in chunk}
        )
    assert held[0] == held[1]
    assert all(table for key, table in held[0].items() if len(key) == 2)
    # Of AAPL one list per table and no file; of MSFT a look, and two files that do not exist.
    assert calls[0] == {"get_file_info": 2 + 1, "open_input_file": 2, "open_output_stream": 4}
    # The second time, three files of AAPL and one of MSFT are read; there is no history yet, and it is written.
    assert calls[1] == {"get_file_info": 2 + 1, "open_input_file": 3 + 2, "open_output_stream": 8}
