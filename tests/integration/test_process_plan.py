"""The plan of a process run: slices of whole symbols, within a bound, of what is not published yet."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.database import Database

from barflow.errors import BarflowError
from barflow.lake.manifests import ActionsFile, Manifest, Partition, manifest_id, run_of
from barflow.lake.partitions import Lake
from barflow.market.actions import Split
from barflow.market.vendor_days import VendorDay
from barflow.pipeline import process_plan
from barflow.pipeline.partition_tasks import Key, Sessions, Written
from barflow.pipeline.process import verify
from barflow.pipeline.process_plan import HOP, Plan, slices
from barflow.staging.actions import Actions, Answer
from barflow.staging.connection import Document
from barflow.staging.ledger import SUCCEEDED, Ledger
from barflow.staging.vendor_days import VendorDays

T = datetime(2026, 1, 5, 12, tzinfo=UTC)
DAYS = ("2025-06-30", "2025-07-01", "2025-07-02", "2025-08-01")
SYMBOLS = ("A", "B", "C", "D", "E")


def session(symbol: str, day: str, version: int = 1, updated_at: datetime = T) -> Document:
    ts = [datetime.fromisoformat(f"{day}T14:30:00")] * 3
    return {
        "_id": f"{symbol}|5min|{day}",
        "symbol": symbol,
        "session_date": day,
        "version": version,
        "updated_at": updated_at,
        "ts": ts,
    }


@pytest.fixture
def staged(database: Database[Document]) -> Database[Document]:
    """Return a database with four sessions in three months of each symbol, a split of B, and a daily bar of B and Z."""
    database["bars"].insert_many([session(symbol, day) for symbol in SYMBOLS for day in DAYS])
    Actions(database).store(
        [Answer("B", "split", [Split("B", date(2025, 7, 1), 2.0, "endpoint", T)], "endpoint", T, T)]
    )
    for symbol in ("B", "Z"):
        day = VendorDay(symbol, date(2025, 7, 2), 1.0, 2.0, 0.5, 1.5, 100, T)
        VendorDays(database).store({day.session_date: day}, day.session_date)
    return database


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def published(found: Plan) -> tuple[Any, ...]:
    return found.partitions, [item.symbol for item in found.actions], [item.symbol for item in found.vendor_days]


@pytest.mark.parametrize("most", [1000, 7], ids=["read at once", "read by symbols"])
def test_a_plan_is_cut_into_slices_of_whole_symbols(
    staged: Database[Document], lake: Lake, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(process_plan, "MOST_CANDIDATES", most)
    monkeypatch.setattr(process_plan, "SYMBOLS_PER_READ", 2)
    monkeypatch.setattr(process_plan, "PARTITIONS_PER_SLICE", 6)
    found = list(slices(staged, Ledger(staged), lake, None, full=False))
    assert [item.symbols for item in found] == [["A", "B"], ["C", "D"], ["E", "Z"]]
    assert [len(item.partitions) for item in found] == [6, 6, 3]
    assert published(found[0]) == (
        {
            (symbol, month): {day: (1, 3) for day in DAYS if day.startswith(month)}
            for symbol in ("A", "B")
            for month in ("2025-06", "2025-07", "2025-08")
        },
        ["B"],
        ["B"],
    )
    assert published(found[2])[1:] == ([], ["Z"])
    assert [item.symbols for item in slices(staged, Ledger(staged), lake, ["E", "B"], full=True)] == [["B", "E"]]


@pytest.mark.parametrize("most", [1000, 2], ids=["read at once", "read by symbols"])
def test_what_a_killed_run_published_is_not_planned_again(
    staged: Database[Document], lake: Lake, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(process_plan, "MOST_CANDIDATES", most)
    monkeypatch.setattr(process_plan, "SYMBOLS_PER_READ", 1)
    ledger, run_id = Ledger(staged), "20260105T120000Z-process-abcdef"
    ledger.start(HOP, run_id, lake=lake.uri, symbols=None)  # and never finished
    (first,) = slices(staged, ledger, lake, ["A", "B"], full=False)
    partitions = tuple(
        Partition(symbol, month, 3, {day: version for day, (version, _) in days.items()})
        for (symbol, month), days in first.partitions.items()
    )
    actions = tuple(ActionsFile(item.symbol, item.version, 1) for item in first.actions)
    name = manifest_id(run_id, 1)
    lake.publish(Manifest(name, T, partitions, actions, tuple(first.vendor_days)))
    fields: dict[str, Any] = {"lake": lake.uri, "symbols": first.symbols, "manifest": name}
    ledger.record_part(HOP, name, T, {symbol: {"rows": 1} for symbol in first.symbols}, **fields)
    assert [run["outcome"] for run in ledger.attempts(run_id)] == [SUCCEEDED]

    def rest(full: bool = False) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for plan in slices(staged, ledger, lake, None, full=full):
            found |= {symbol: [] for symbol in plan.symbols}
            for (symbol, _), days in sorted(plan.partitions.items()):
                found[symbol] += days
        return found

    others = {**{symbol: list(DAYS) for symbol in ("C", "D", "E")}, "Z": []}
    assert rest() == others
    # Another version, and a document that expired and was fetched again.
    newer = datetime.now(UTC) + timedelta(minutes=1)
    staged["bars"].replace_one({"_id": "A|5min|2025-07-01"}, session("A", "2025-07-01", version=2))
    staged["bars"].replace_one({"_id": "B|5min|2025-08-01"}, session("B", "2025-08-01", updated_at=newer))
    assert rest() == {"A": ["2025-07-01"], "B": ["2025-08-01"], **others}
    assert rest(full=True) == {**{symbol: list(DAYS) for symbol in SYMBOLS}, "Z": []}


def test_a_session_that_appears_after_the_plan_is_left_to_the_next_run() -> None:
    counts = [{"symbol": "A", "session_date": f"2025-07-0{day}", "version": 3 - day, "bars": 40} for day in (1, 2)]
    staging: Any = SimpleNamespace(counts=lambda *_: counts)
    planned: dict[Key, Sessions] = {("A", "2025-07"): {"2025-07-01": (1, 39)}}
    verify(staging, [Written("part", "A", "2025-07", 40, {"2025-07-01": (2, 40)})], planned)
    with pytest.raises(BarflowError, match="2025-07-01: MongoDB counts 40 bars and 38 were written"):
        verify(staging, [Written("part", "A", "2025-07", 38, {"2025-07-01": (2, 38)})], planned)


def test_the_ids_of_a_runs_manifests_sort_and_name_their_run() -> None:
    run_id = "20260105T120000Z-process-123456"
    names = [manifest_id(run_id, number) for number in (1, 2, 10, 100)]
    assert names == sorted(names)
    assert {run_of(name) for name in (*names, run_id)} == {run_id}


def test_a_lake_is_complete_until_what_the_last_slice_says(lake: Lake) -> None:
    run_id = "20260105T120000Z-process-123456"
    read = list[str]()
    for number in range(1, 13):
        until = T + timedelta(hours=1) if number == 12 else T
        lake.publish(Manifest(manifest_id(run_id, number), T + timedelta(number), (), complete_until=until))
    manifest = lake.manifest
    lake.manifest = lambda name: read.append(name) or manifest(name)  # type: ignore[method-assign, func-returns-value]
    assert lake.complete_until() == T + timedelta(hours=1)
    assert read == [manifest_id(run_id, 12)]


def test_the_memory_of_a_plan_follows_the_slice(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first load of many symbols and years does not hold all its sessions."""
    months = [f"{year}-{month:02}" for year in (2023, 2024) for month in range(1, 13)]

    def counts(symbols: Sequence[str] | None = None, **_: Any) -> Iterator[Document]:
        for symbol in symbols or names:
            for month in months:
                for day in range(1, 6):
                    identity = {"symbol": symbol, "session_date": f"{month}-{day:02}", "version": 1}
                    yield {**identity, "updated_at": T, "bars": 78, "last": T}

    monkeypatch.setattr(process_plan, "Staging", lambda _: SimpleNamespace(counts=counts, size=lambda: 10**6))
    monkeypatch.setattr(process_plan.Actions, "changed", lambda *_: iter(()))
    monkeypatch.setattr(process_plan, "changed_days", lambda *_: iter(()))
    monkeypatch.setattr(process_plan, "changed_symbols", lambda *_: set(names))
    monkeypatch.setattr(process_plan, "MOST_CANDIDATES", 1_000)
    monkeypatch.setattr(process_plan, "PARTITIONS_PER_SLICE", 240)
    empty: Any = SimpleNamespace(last=lambda *_, **__: None, finished_since=lambda *_, **__: [])
    database: Any = {"corporate_actions": None}
    peaks = []
    for symbols in (20, 100):
        names = [f"S{number:03}" for number in range(symbols)]
        tracemalloc.start()
        partitions = [len(plan.partitions) for plan in slices(database, empty, lake, None, full=False)]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (sum(partitions), max(partitions)) == (symbols * len(months), 240)
    assert peaks[1] < 1.3 * peaks[0], peaks
