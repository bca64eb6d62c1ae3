"""Process: it writes changed partitions only, publishes only what agrees with MongoDB, and loses no session."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from harness import AGGREGATE, ASKED, PROCESS, Pipeline, random_session, revised

from barflow.errors import BarflowError
from barflow.lake.partitions import Lake
from barflow.market.bars import ARRAYS
from barflow.market.sessions import utc_now
from barflow.pipeline import partition_tasks, process, process_plan
from barflow.pipeline.lineage import Count
from barflow.pipeline.lineage_lake import PROCESS as LINEAGE
from barflow.pipeline.partition_tasks import Written, write_partition
from barflow.pipeline.process import ProcessReport
from barflow.pipeline.raw_sessions import read_raw
from barflow.pipeline.session_columns import columns_of
from barflow.settings import load_settings
from barflow.staging.sessions import Staging

JULY = ("2025-07-29", "2025-07-30", "2025-07-31")
AUGUST = ("2025-08-01", "2025-08-04")


def market(*symbols: str, days: tuple[str, ...] = (*JULY, *AUGUST), bars: int | None = None) -> list[Any]:
    return [random_session(symbol, day, bars=bars) for symbol in symbols for day in days]


def files(lake: Lake) -> dict[str, tuple[int, int]]:
    """Return every file of the lake by path, with its inode and modification time: both change when it is replaced."""
    found = (path for path in Path(lake.root).rglob("*") if path.is_file())
    return {str(path.relative_to(lake.root)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def run_before_reading(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Call ``act`` after process has counted the changes and before a task reads the bars."""
    original = process.stage_partitions

    def late(*arguments: Any, **options: Any) -> list[Written]:
        act()
        return original(*arguments, **options)

    monkeypatch.setattr(process, "stage_partitions", late)


def test_staged_bars_equal_parquet_rows_for_every_session(pipeline: Pipeline) -> None:
    pipeline.stage(market("AAPL", "BRK.B", "EUR/USD"))
    done = pipeline.process()
    assert (done["outcome"], done["partitions"], done["sessions"], done["rows"]) == ("published", 6, 15, 15 * 78)
    counts = pipeline.counts()
    assert counts["parquet"] == counts["staged"]
    assert len(counts["staged"]) == 15


def test_only_changed_partitions_are_written_and_only_changed_sessions_announced(pipeline: Pipeline) -> None:
    pipeline.stage(market("AAPL", "MSFT"))
    pipeline.process()
    before = files(pipeline.lake)
    bars = random_session("AAPL", JULY[1])
    pipeline.stage([revised(bars, 3, close=bars.low[3])])
    done = pipeline.process()
    replaced = {path for path, mark in files(pipeline.lake).items() if before.get(path) != mark}
    manifest = f"manifests/{done['manifest']}.json"
    partition = "symbol=AAPL/month=2025-07"
    kept = f"bars_5min_history/{partition}/history.parquet"
    assert replaced == {f"bars_5min/{partition}/bars.parquet", kept, manifest}
    (partition,) = pipeline.lake.manifest(done["manifest"]).partitions
    assert (partition.sessions, partition.rows) == ([JULY[1]], 3 * 78)


def test_a_run_without_changes_starts_no_spark_and_publishes_nothing(pipeline: Pipeline) -> None:
    pipeline.stage(market("AAPL"))
    pipeline.process()
    before = files(pipeline.lake)
    ran = pipeline.run(PROCESS)
    assert (ran.code, ran.result["outcome"], ran.result["manifest"]) == (0, "nothing changed", None)
    assert ran.stderr == "nothing changed since the last run\n"
    assert files(pipeline.lake) == before


def test_no_bar_passes_through_the_driver(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check flaw 8 of earlier systems: the driver collected all bars."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the driver read bars")

    monkeypatch.setattr(Staging, "raw_between", forbidden)
    monkeypatch.setattr(partition_tasks, "to_table", forbidden)
    pipeline.stage(market("AAPL"))
    assert pipeline.process()["rows"] == 5 * 78


def test_only_the_newest_version_of_a_bar_is_published(pipeline: Pipeline) -> None:
    """Check flaw 9 of earlier systems: chance decided which of several versions was kept."""
    bars = random_session("AAPL", JULY[0], bars=3)
    for close in (bars.low[1], bars.high[1], bars.open[1]):
        pipeline.stage([revised(bars, 1, close=close)])
        pipeline.process()
    table = pipeline.lake.read("AAPL", "2025-07")
    assert table is not None
    assert table["close"].to_pylist() == [bars.close[0], bars.open[1], bars.close[2]]
    assert table["revision"].to_pylist() == [0, 2, 0]
    # A document that was changed keeps the order of its fields, so it is read the fast way too.
    assert all(map(read_raw, Staging(pipeline.database).raw_between("AAPL", JULY[0], JULY[0])))


def test_rows_are_sorted_by_time(pipeline: Pipeline) -> None:
    pipeline.stage(market("AAPL", days=(JULY[2],)))
    pipeline.process()
    pipeline.stage(market("AAPL", days=(JULY[0],)))
    pipeline.process()
    table = pipeline.lake.read("AAPL", "2025-07")
    assert table is not None
    assert table["ts"].to_pylist() == sorted(table["ts"].to_pylist())
    assert table.num_rows == 2 * 78


def test_the_archive_keeps_sessions_that_expired_in_mongodb(pipeline: Pipeline) -> None:
    pipeline.stage(market("AAPL"))
    pipeline.process()
    counts, old = pipeline.counts()["parquet"], pipeline.lake.read("AAPL", "2025-07")
    pipeline.database["bars"].delete_many({"session_date": {"$lt": JULY[2]}})
    pipeline.stage([revised(random_session("AAPL", JULY[2]), 0, volume=1)])
    for arguments in ((), ("--full",), ("--full", "--symbols", "AAPL")):
        pipeline.process(*arguments)
        assert pipeline.counts()["parquet"] == counts, arguments
    new = pipeline.lake.read("AAPL", "2025-07")
    assert old is not None
    assert new is not None
    assert new.slice(0, 2 * 78) == old.slice(0, 2 * 78)
    assert new["volume"][2 * 78].as_py() == 1


def test_a_lost_file_is_rewritten_with_its_whole_month(pipeline: Pipeline) -> None:
    pipeline.stage(market("AAPL"))
    pipeline.process()
    Path(pipeline.lake.path("AAPL", "2025-07")).unlink()
    pipeline.stage([revised(random_session("AAPL", JULY[1]), 0, volume=1)])
    pipeline.process()
    counts = pipeline.counts()
    assert counts["parquet"] == counts["staged"]


def test_full_rewrites_every_partition(pipeline: Pipeline) -> None:
    pipeline.stage(market("AAPL", "MSFT"))
    pipeline.process()
    one = pipeline.process("--full", "--symbols", "MSFT")
    assert [item.symbol for item in pipeline.lake.manifest(one["manifest"]).partitions] == ["MSFT", "MSFT"]
    assert pipeline.process("--full")["partitions"] == 4
    assert pipeline.process()["outcome"] == "nothing changed"


def test_a_run_of_some_symbols_leaves_the_others_to_the_next_run(pipeline: Pipeline) -> None:
    pipeline.stage(market("AAPL", "MSFT", "NVDA"))
    assert pipeline.process("--symbols", "MSFT")["partitions"] == 2
    done = pipeline.process()
    assert {item.symbol for item in pipeline.lake.manifest(done["manifest"]).partitions} >= {"AAPL", "NVDA"}
    assert pipeline.process()["outcome"] == "nothing changed"
    pipeline.stage([random_session("NVDA", "2025-08-05")])
    assert pipeline.process("--symbols", "AAPL")["outcome"] == "nothing changed"
    assert pipeline.process()["sessions"] == 1


def test_a_document_of_uneven_arrays_is_rejected_and_named(pipeline: Pipeline) -> None:
    pipeline.stage(market("AAPL"))
    pipeline.process()
    before = files(pipeline.lake)
    day = random_session("AAPL", JULY[1])
    pipeline.stage([revised(day, 0, volume=1)])
    for key, columns in ((JULY[1], day.close[:-1]), (JULY[2], [*day.close, 1.0])):  # the sum of both is unchanged
        pipeline.database["bars"].update_one({"_id": f"AAPL|5min|{key}"}, {"$set": {"close": columns}})
    ran = pipeline.run(PROCESS, "--full")
    assert ran.code == 1
    assert f"AAPL {JULY[1]}: the arrays of its document differ in length" in ran.error
    assert files(pipeline.lake).keys() >= before.keys()
    assert {path: mark for path, mark in files(pipeline.lake).items() if "_staged" not in path} == before


def test_bars_removed_without_a_new_version_stop_the_run(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.stage(market("AAPL"))
    shorter = {"$pop": dict.fromkeys(ARRAYS, 1)}
    key = {"_id": f"AAPL|5min|{JULY[0]}"}
    run_before_reading(monkeypatch, lambda: pipeline.database["bars"].update_one(key, shorter))
    ran = pipeline.run(PROCESS)
    assert ran.code == 1
    assert f"AAPL {JULY[0]}: MongoDB counts 78 bars and 77 were written. Nothing more was published" in ran.error
    assert (pipeline.lake.manifest_ids(), list(pipeline.lake.partitions())) == ([], [])


def test_a_session_deleted_during_the_run_stops_it(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.stage(market("AAPL"))
    key = {"_id": f"AAPL|5min|{JULY[0]}"}
    run_before_reading(monkeypatch, lambda: pipeline.database["bars"].delete_one(key))
    ran = pipeline.run(PROCESS)
    assert "MongoDB counts 78 bars and 0 were written" in ran.error
    assert pipeline.lake.manifest_ids() == []
    monkeypatch.undo()
    assert pipeline.process()["rows"] == 4 * 78


def test_a_session_that_a_tick_changes_during_the_run_is_published_whole(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.stage(market("AAPL", bars=10))
    run_before_reading(monkeypatch, lambda: pipeline.stage([random_session("AAPL", JULY[0])]))
    first = pipeline.process()
    monkeypatch.undo()
    assert pipeline.counts()["parquet"] == pipeline.counts()["staged"]
    assert pipeline.lake.manifest(first["manifest"]).partitions[0].versions[JULY[0]] == 2
    assert pipeline.process()["outcome"] == "nothing changed"


def test_a_run_publishes_each_slice_by_a_manifest_and_resumes_after_the_last_one(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_plan, "PARTITIONS_PER_SLICE", 2)
    pipeline.stage(market("AAPL", "MSFT", "NVDA"))
    staged = process.stage_partitions
    key = {"_id": f"MSFT|5min|{JULY[0]}"}

    def shortened(spark: Any, planned: Any, **options: Any) -> list[Written]:
        if ("MSFT", "2025-07") in planned:
            pipeline.database["bars"].update_one(key, {"$pop": dict.fromkeys(ARRAYS, 1)})
        return staged(spark, planned, **options)

    monkeypatch.setattr(process, "stage_partitions", shortened)
    ran = pipeline.run(PROCESS)
    assert (ran.code, "MSFT 2025-07-29: MongoDB counts 78 bars and 77 were written" in ran.error) == (1, True)
    (kept,) = pipeline.lake.manifest_ids()
    assert {(symbol, month) for symbol, month, _ in pipeline.lake.partitions()} == {
        ("AAPL", "2025-07"),
        ("AAPL", "2025-08"),
    }
    assert pipeline.lake.complete_until() is None
    failed, part = sorted(pipeline.ledger.finished_since("process", ASKED), key=lambda run: len(run["_id"]))
    assert (failed["outcome"], part["outcome"], part["manifest"]) == ("failed", "succeeded", kept)
    assert part["symbols"] == ["AAPL"], "a part is no run of all symbols: the next run compares as far back as before"
    assert pipeline.ledger.last("process")["_id"] == failed["_id"]  # type: ignore[index]
    assert pipeline.run(AGGREGATE).result["sessions"] == 5, "what is published is loaded"
    monkeypatch.setattr(process, "stage_partitions", staged)
    before = utc_now()
    done = pipeline.process()
    assert (done["partitions"], done["sessions"], done["rows"], done["outcome"]) == (4, 10, 10 * 78 - 1, "published")
    assert done["manifests"] == pipeline.lake.manifest_ids()[1:]
    assert done["manifest"] == done["manifests"][-1] == f"{done['run_id']}-0002"
    first, last = map(pipeline.lake.manifest, done["manifests"])
    assert (first.symbols, first.complete_until) == ({"MSFT"}, None)
    assert last.symbols == {"NVDA"}
    assert last.complete_until is not None
    assert last.complete_until >= before - timedelta(milliseconds=2)
    with pipeline.in_environment():
        report = ProcessReport(**{**done, "manifests": tuple(done["manifests"])})
        assert LINEAGE.counts(load_settings(), report)["bars_5min"] == Count(10 * 78 - 1, 4)
    assert {row["symbol"] for run in pipeline.ledger.attempts(done["run_id"]) for row in run["counts"]} == {"MSFT"}
    assert pipeline.ledger.get(done["run_id"])["counts"] == [{"symbol": "NVDA", "rows": 5 * 78}]  # type: ignore[index]
    assert pipeline.aggregate()["manifests"] == 2
    assert pipeline.process()["outcome"] == "nothing changed"
    counted = pipeline.counts()
    assert {hop for hop, found in counted.items() if found != counted["staged"]} == set()


def test_a_file_that_lacks_rows_raises_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = pq.write_table
    monkeypatch.setattr(pq, "write_table", lambda table, *where, **how: write(table.slice(1), *where, **how))
    with pytest.raises(BarflowError, match="AAPL 2025-07: 78 rows were written and 77 are in the file"):
        write_partition(Lake(str(tmp_path)), "run", ("AAPL", "2025-07"), [columns_of(document("AAPL", JULY[0]))])


def document(symbol: str, day: str) -> dict[str, Any]:
    """Return a session as a task reads it from MongoDB: naive UTC datetimes."""
    bars = random_session(symbol, day)
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume", "revision")}
    ts = [moment.replace(tzinfo=None) for moment in bars.ts]
    known_from = [moment + timedelta(minutes=5, seconds=4) for moment in ts]
    identity = {"_id": f"{symbol}|5min|{day}", "symbol": symbol, "session_date": day, "version": 1}
    return {**identity, "ts": ts, **columns, "known_from": known_from}


def test_a_late_write_of_an_abandoned_task_attempt_changes_nothing(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its older rows must not replace those that the second attempt wrote and the run counted."""
    bars, note = random_session("AAPL", JULY[0]), str(tmp_path / "first-attempt.txt")
    pipeline.stage([bars])
    write = partition_tasks.write_partition

    def twice(lake: Lake, part: str, key: Any, sessions: Any, versions: Any) -> Written:
        from pathlib import Path

        from pyspark import TaskContext

        if TaskContext.get().attemptNumber() == 0:
            Path(note).write_text(part)
            raise RuntimeError("the executor is lost")
        written = write(lake, part, key, sessions, versions)
        older = [item._replace(columns={**item.columns, "close": item.columns["open"]}) for item in sessions]
        write(lake, Path(note).read_text(), key, older, versions)
        return written

    monkeypatch.setattr(partition_tasks, "write_partition", twice)
    pipeline.process()
    table = pipeline.lake.read("AAPL", "2025-07")
    assert table is not None
    assert table["close"].to_pylist() == bars.close
    assert not any(Path(pipeline.lake.root).glob("_staged/*"))
