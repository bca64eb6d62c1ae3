"""A partition is replaced whole or not at all, and a manifest is the last thing that a run writes."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import lake_table

from barflow.errors import BarflowError, UnavailableError
from barflow.lake.manifests import Manifest, Partition
from barflow.lake.partitions import Lake
from barflow.market.arrow import arrow_schema


def bars_of(close: float, day: int = 2) -> pa.Table:
    ts = datetime(2025, 7, day, 13, 30, tzinfo=UTC)
    row = {"ts": ts, "session_date": ts.date(), "open": 10.0, "high": 20.0, "low": 5.0, "close": close}
    return lake_table([{**row, "volume": 1}])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def files(lake: Lake) -> list[str]:
    return sorted(str(path.relative_to(lake.root)) for path in Path(lake.root).rglob("*") if path.is_file())


def test_a_partition_lies_where_the_contract_says_and_reads_back(lake: Lake) -> None:
    lake.replace("AAPL", "2025-07", bars_of(10.0))
    assert files(lake) == ["bars_5min/symbol=AAPL/month=2025-07/bars.parquet"]
    stored = pq.ParquetFile(f"{lake.root}/{files(lake)[0]}")
    assert stored.schema_arrow.equals(arrow_schema())
    assert stored.metadata.row_group(0).column(0).compression == "SNAPPY"
    assert lake.read("AAPL", "2025-07") == bars_of(10.0)
    assert lake.read("MSFT", "2025-07") is None


def test_what_is_staged_is_not_read_until_it_is_promoted(lake: Lake) -> None:
    lake.replace("AAPL", "2025-07", bars_of(10.0))
    lake.stage("run", "AAPL", "2025-07", bars_of(11.0))
    assert lake.read("AAPL", "2025-07") == bars_of(10.0)
    assert [symbol for symbol, _, _ in lake.partitions()] == ["AAPL"]
    lake.promote("run", [("AAPL", "2025-07")])
    assert lake.read("AAPL", "2025-07") == bars_of(11.0)
    assert len(files(lake)) == 1


def test_what_a_dead_run_staged_is_swept(lake: Lake) -> None:
    lake.stage("dead", "AAPL", "2025-07", bars_of(11.0))
    lake.discard_staged()
    assert files(lake) == []


def test_a_write_that_fails_leaves_the_old_file(lake: Lake) -> None:
    lake.replace("AAPL", "2025-07", bars_of(10.0))
    (Path(lake.root) / "_staged").rmdir()
    (Path(lake.root) / "_staged").write_text("in the way")
    with pytest.raises(UnavailableError, match=r"could not write .*Every file that readers see is complete"):
        lake.stage("run", "AAPL", "2025-07", bars_of(11.0))
    assert lake.read("AAPL", "2025-07") == bars_of(10.0)


def test_a_full_disk_leaves_what_readers_see(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lake.replace("AAPL", "2025-07", bars_of(10.0))
    manifest = Manifest("run", datetime(2025, 7, 2, tzinfo=UTC), (Partition("AAPL", "2025-07", 1, {"2025-07-02": 1}),))
    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: lake.stage("run", "AAPL", "2025-07", bars_of(11.0)), lambda: lake.publish(manifest)):
        with pytest.raises(
            UnavailableError, match=r"No space left on device\. Every file that readers see is complete\. Free"
        ):
            write()
    assert (lake.read("AAPL", "2025-07"), lake.manifest_ids()) == (bars_of(10.0), [])


def test_a_manifest_reads_back_and_lists_oldest_first(lake: Lake) -> None:
    second, first = (
        Manifest(name, datetime(2025, 7, 2, tzinfo=UTC), (Partition("BRK.B", "2025-07", 78, {"2025-07-02": 3}),))
        for name in ("20250703T000000Z-process-b", "20250702T000000Z-process-a")
    )
    lake.publish(second)
    lake.publish(first)
    assert lake.manifest_ids() == [first.run_id, second.run_id]
    assert lake.manifest(first.run_id) == first
    assert first.partitions[0].sessions == ["2025-07-02"]


def test_a_damaged_file_or_manifest_is_named(lake: Lake) -> None:
    lake.replace("AAPL", "2025-07", bars_of(10.0))
    Path(lake.path("AAPL", "2025-07")).write_bytes(b"PAR1 not really")
    with pytest.raises(BarflowError, match=r"symbol=AAPL.*not a readable Parquet file"):
        lake.read("AAPL", "2025-07")
    (Path(lake.root) / "manifests").mkdir()
    (Path(lake.root) / "manifests" / "x.json").write_text('{"run_id": "x"')
    with pytest.raises(BarflowError, match=r"x\.json cannot be read"):
        lake.manifest("x")


def test_a_symbol_with_odd_letters_keeps_its_name(lake: Lake) -> None:
    for symbol in ("BRK.B", "SBIN:NSE", "EUR/USD"):
        lake.replace(symbol, "2025-07", bars_of(10.0))
    assert sorted(symbol for symbol, _, _ in lake.partitions()) == ["BRK.B", "EUR/USD", "SBIN:NSE"]
    assert sorted(row[:3] for row in lake.session_counts()) == [
        ("BRK.B", "2025-07-02", 1),
        ("EUR/USD", "2025-07-02", 1),
        ("SBIN:NSE", "2025-07-02", 1),
    ]
