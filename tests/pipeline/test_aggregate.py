"""Aggregate: what a load takes, how it buckets bars, and how corrections reach the warehouse.

After any sequence of changes the warehouse equals one load of everything.
"""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from harness import AGGREGATE, Pipeline, random_session, revised

import barflow
from barflow.lake.manifests import Manifest, Partition
from barflow.market.bars import SessionBars
from barflow.market.sessions import sessions_between
from barflow.warehouse.load import TABLES
from rehearsal.oracle import Oracle, disagreements, read_table

DAYS = [str(item.session_date) for item in sessions_between(date(2025, 9, 2), date(2025, 12, 31))]
BAR_TABLES = TABLES[:-1]


def first_bars(symbol: str, days: list[str], bars: int = 4) -> dict[str, SessionBars]:
    """Return the first bars of each session, by day. They fill every table and load fast."""
    return {day: random_session(symbol, day, bars=bars) for day in days}


def test_per_session_staged_bars_equal_parquet_rows_equal_the_sum_of_bar_count(pipeline: Pipeline) -> None:
    sessions = [
        random_session(symbol, day) for symbol in ("AAPL", "BRK.B", "EUR/USD") for day in ("2025-07-02", "2025-07-03")
    ]
    pipeline.stage([*sessions, random_session("AAPL", "2025-07-07", bars=31)])
    pipeline.process()
    pipeline.aggregate()
    counts = pipeline.counts()
    assert len(counts["staged"]) == 7
    assert_read_equals_the_warehouse(pipeline)
    assert {hop: found for hop, found in counts.items() if found != counts["staged"]} == {}


def assert_read_equals_the_warehouse(pipeline: Pipeline) -> None:
    """Check that the intervals of barflow.read are the rows of the warehouse's tables."""
    for interval in ("30min", "1h", "1d"):
        found = barflow.read(
            barflow.symbols(lake=pipeline.lake.root), "2025-07-01", "2025-07-31", interval=interval, adjust="none",
            lake=pipeline.lake.root,
        )  # fmt: skip
        rows = [{**row, "bar_start": row.pop("ts")} for row in found.to_pylist()]
        stored = read_table(pipeline.warehouse_dsn, f"bar_{interval}")
        assert len(rows) == len(stored) > 6
        for row in rows:
            theirs = stored[row["symbol"], row["bar_start"]]
            assert {name: row[name] for name in theirs if name in row and name != "vwap"} == {
                name: value for name, value in theirs.items() if name in row and name != "vwap"
            }
            assert row["vwap"] == pytest.approx(theirs["vwap"], rel=1e-12)


def test_the_warehouse_equals_the_oracle_in_any_order_of_arrival(pipeline: Pipeline) -> None:
    aapl, msft = (first_bars(symbol, DAYS) for symbol in ("AAPL", "MSFT"))
    corrected = revised(aapl[DAYS[35]], 3, close=aapl[DAYS[35]].low[3], volume=9)
    steps: list[dict[str, list[SessionBars]]] = [
        {"middle sessions": [source[day] for source in (aapl, msft) for day in DAYS[30:60]]},
        {"earlier sessions": [aapl[day] for day in DAYS[:10]]},
        {"a correction": [corrected]},
        {"sessions in the gap": [aapl[day] for day in DAYS[10:30]] + [msft[DAYS[29]]]},
        {"newest sessions, partial": [aapl[day] for day in DAYS[60:]] + [random_session("MSFT", DAYS[60], bars=2)]},
        {"newest session, more bars": [random_session("MSFT", DAYS[60], bars=7)]},
    ]
    stored: dict[tuple[str, date], SessionBars] = {}
    for step in steps:
        for bars in next(iter(step.values())):
            stored[bars.symbol, bars.session_date] = bars
        pipeline.stage(next(iter(step.values())))
        pipeline.process()
        pipeline.aggregate()
        assert disagreements(pipeline.warehouse_dsn, Oracle.of_sessions(stored.values())) == {}, next(iter(step))


def test_a_correction_changes_its_session_and_dependent_metrics_and_no_other_row(pipeline: Pipeline) -> None:
    aapl = first_bars("AAPL", DAYS)
    pipeline.stage([*aapl.values(), *first_bars("MSFT", DAYS).values()])
    pipeline.process()
    first = pipeline.aggregate()["run_id"]
    day = DAYS[7]
    pipeline.stage([revised(aapl[day], 3, close=aapl[day].high[3])])
    pipeline.process()
    second = pipeline.aggregate()["run_id"]

    parquet = pipeline.lake.read("AAPL", day[:7])
    assert parquet is not None
    assert aapl[day].high[3] in parquet["close"].to_pylist()
    key = ("AAPL", date.fromisoformat(day))
    for table in BAR_TABLES:
        loads = pipeline.load_ids(table)
        assert loads.pop(key) == {second}
        assert {load for found in loads.values() for load in found} == {first}
    assert read_table(pipeline.warehouse_dsn, "daily_metrics")[key]["close"] == aapl[day].high[3]
    rewritten = [str(day) for (symbol, day), loads in pipeline.load_ids("daily_metrics").items() if loads == {second}]
    # Fifty sessions: the sma_50 of the last one still includes the corrected day.
    assert sorted(rewritten) == DAYS[7:57]
    assert {symbol for (symbol, _), loads in pipeline.load_ids("daily_metrics").items() if loads == {second}} == {
        "AAPL"
    }


def test_the_second_load_of_the_same_lake_changes_nothing(pipeline: Pipeline) -> None:
    """Check flaw 5 of earlier systems: a rerun appended its rows again."""
    pipeline.stage(first_bars("AAPL", DAYS[:3]).values())
    pipeline.process()
    pipeline.aggregate()
    before = pipeline.warehouse(), pipeline.rows("ops.load_run")
    ran = pipeline.run(AGGREGATE)
    assert (ran.code, ran.result["outcome"], ran.stderr) == (
        0,
        "nothing new",
        "nothing was published since the last load\n",
    )
    assert (pipeline.warehouse(), pipeline.rows("ops.load_run")) == before
    pipeline.aggregate("--full")
    assert without_load_ids(pipeline.warehouse()) == without_load_ids(before[0])


def without_load_ids(warehouse: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows without their last column, load_id."""
    return {table: [row[:-1] for row in rows] for table, rows in warehouse.items()}


def test_a_full_load_replaces_everything_and_consumes_the_waiting_manifests(pipeline: Pipeline) -> None:
    pipeline.stage([*first_bars("AAPL", DAYS[:3]).values(), *first_bars("MSFT", DAYS[:3]).values()])
    pipeline.process()
    old = pipeline.aggregate()["run_id"]
    # The archive loses one session, and process publishes another.
    kept = pipeline.lake.read("AAPL", DAYS[0][:7])
    assert kept is not None
    pipeline.lake.replace("AAPL", DAYS[0][:7], kept.slice(4))
    pipeline.stage(first_bars("MSFT", DAYS[3:4]).values())
    pipeline.process()

    some = pipeline.aggregate("--full", "--symbols", "AAPL")
    assert (some["manifests"], some["sessions"]) == (0, 2)
    loads = pipeline.load_ids("bar_1d")
    assert ("AAPL", date.fromisoformat(DAYS[0])) not in loads
    assert {load for (symbol, _), found in loads.items() if symbol == "MSFT" for load in found} == {old}
    assert len(pipeline.load_ids("daily_metrics")) == 5

    every = pipeline.aggregate("--full")
    assert (every["manifests"], every["sessions"]) == (1, 6)
    assert {load for found in pipeline.load_ids("bar_5min").values() for load in found} == {every["run_id"]}
    assert pipeline.aggregate()["outcome"] == "nothing new"


def test_open_and_close_do_not_depend_on_the_order_of_rows(pipeline: Pipeline) -> None:
    """Check flaw 1 of earlier systems: `first` and `last` on newest-first rows swap open and close."""
    day = "2025-07-02"
    bars = random_session("AAPL", day)
    pipeline.stage([bars])
    pipeline.process()
    table = pipeline.lake.read("AAPL", "2025-07")
    assert table is not None
    shuffled = [*range(len(bars))]
    random.Random(7).shuffle(shuffled)
    for order in (shuffled, [*reversed(range(len(bars)))]):
        pipeline.lake.replace("AAPL", "2025-07", table.take(pa.array(order)))
        pipeline.aggregate("--full")
        assert disagreements(pipeline.warehouse_dsn, Oracle.of_sessions([bars])) == {}
    whole_day = read_table(pipeline.warehouse_dsn, "bar_1d")["AAPL", bars.ts[0]]
    assert (whole_day["open"], whole_day["close"]) == (bars.open[0], bars.close[-1])


def test_buckets_never_mix_symbols(pipeline: Pipeline) -> None:
    """Check flaw 2 of earlier systems: a bucket without the symbol in its key."""
    cheap, expensive = random_session("PENNY", "2025-07-02"), random_session("GOLD", "2025-07-02")
    for name in ("open", "high", "low", "close"):
        setattr(expensive, name, [price * 1000 for price in getattr(expensive, name)])
    pipeline.stage([cheap, expensive])
    pipeline.process()
    pipeline.aggregate()
    for table in BAR_TABLES:
        rows = read_table(pipeline.warehouse_dsn, table)
        for bars in (cheap, expensive):
            own_rows = [row for (symbol, _), row in rows.items() if symbol == bars.symbol]
            assert sum(row["volume"] for row in own_rows) == sum(bars.volume)
            assert max(row["high"] for row in own_rows) == max(bars.high)
            assert min(row["low"] for row in own_rows) == min(bars.low)


def test_a_session_opens_at_its_own_utc_hour_before_and_after_a_daylight_saving_change(pipeline: Pipeline) -> None:
    """Check flaws 6 and 7 of earlier systems: local time stored as UTC, fixed session hours, buckets by clock hour."""
    pipeline.stage(
        [
            random_session("AAPL", "2025-10-31"),
            random_session("AAPL", "2025-11-03"),
            random_session("AAPL", "2025-11-28"),
        ]
    )
    pipeline.process()
    pipeline.aggregate()
    starts: dict[date, list[tuple[int, int]]] = {}
    for (_, start), row in sorted(read_table(pipeline.warehouse_dsn, "bar_1h").items()):
        starts.setdefault(row["session_date"], []).append((start.astimezone(UTC).hour, start.minute))
    assert starts == {
        date(2025, 10, 31): [(hour, 30) for hour in range(13, 20)],
        date(2025, 11, 3): [(hour, 30) for hour in range(14, 21)],
        date(2025, 11, 28): [(hour, 30) for hour in range(14, 18)],
    }
    expected = [row["expected_bars"] for _, row in sorted(read_table(pipeline.warehouse_dsn, "bar_1h").items())]
    assert expected == [12, 12, 12, 12, 12, 12, 6] * 2 + [12, 12, 12, 6]


def test_symbols_without_full_are_rejected(pipeline: Pipeline) -> None:
    ran = pipeline.run(AGGREGATE, "--symbols", "AAPL")
    assert (ran.code, "--symbols requires --full" in ran.error) == (2, True)


def test_an_unknown_symbol_is_named_in_the_error(pipeline: Pipeline) -> None:
    pipeline.stage(first_bars("AAPL", DAYS[:1]).values())
    pipeline.process()
    ran = pipeline.run(AGGREGATE, "--full", "--symbols", "AAPL,NOPE")
    assert (ran.code, "no bars of NOPE" in ran.error) == (2, True)
    assert pipeline.warehouse() == {table: [] for table in TABLES}


def test_a_session_with_impossible_values_holds_back_its_symbol_alone(pipeline: Pipeline) -> None:
    """The sum of volumes overflows, an average of prices is infinite, or a price is not a number."""
    broken = {
        "AAPL": {"volume": 2**62},
        "MSFT": {"high": 1.7e308, "close": 1.7e308, "open": 1e308, "low": 1e308},
        "NVDA": {"low": float("nan")},
    }
    sessions = {symbol: first_bars(symbol, DAYS[:2]) for symbol in (*broken, "TSLA")}
    first, second = ([found[day] for found in sessions.values()] for day in DAYS[:2])
    pipeline.stage(first)
    pipeline.process()
    pipeline.aggregate()
    for bars in second[:-1]:
        wrong = bars
        for index in range(len(bars)):
            wrong = revised(wrong, index, **broken[bars.symbol])
        pipeline.stage([wrong])
    pipeline.stage(second[-1:])
    pipeline.process()
    ran = pipeline.run(AGGREGATE)
    assert (ran.code, f"AAPL {DAYS[1]} holds impossible" in ran.error) == (1, True)
    assert "and 2 more sessions do. The rows of AAPL, MSFT, NVDA were not loaded" in ran.error
    assert "barflow aggregate --full --symbols AAPL,MSFT,NVDA" in ran.error
    expected = [*first, second[-1]]
    assert disagreements(pipeline.warehouse_dsn, Oracle.of_sessions(expected)) == {}
    corrected = [revised(bars, 0, volume=5) for bars in second[:-1]]
    pipeline.stage(corrected)
    pipeline.process()
    pipeline.aggregate("--full", "--symbols", "AAPL,MSFT,NVDA")
    assert disagreements(pipeline.warehouse_dsn, Oracle.of_sessions([*expected, *corrected])) == {}


def test_float_noise_is_loaded_as_it_was_received(pipeline: Pipeline) -> None:
    quiet = first_bars("AAPL", DAYS[:1])[DAYS[0]]
    noisy = revised(quiet, 0, open=0.3, high=0.3, low=0.29, close=0.1 + 0.2)
    pipeline.stage([noisy])
    pipeline.process()
    pipeline.aggregate()
    assert disagreements(pipeline.warehouse_dsn, Oracle.of_sessions([noisy])) == {}


def test_a_missing_partition_stops_the_load(pipeline: Pipeline) -> None:
    pipeline.stage(first_bars("AAPL", DAYS[:1]).values())
    pipeline.process()
    Path(pipeline.lake.path("AAPL", DAYS[0][:7])).unlink()
    ran = pipeline.run(AGGREGATE)
    assert ran.code == 1
    assert f"AAPL {DAYS[0][:7]} was published and is not in the lake" in ran.error
    assert "barflow process --full --symbols AAPL" in ran.error
    pipeline.process("--full", "--symbols", "AAPL")
    assert pipeline.aggregate()["sessions"] == 1


def test_a_damaged_file_stops_the_load_and_is_named(pipeline: Pipeline) -> None:
    pipeline.stage(first_bars("AAPL", DAYS[:1]).values())
    pipeline.process()
    Path(pipeline.lake.path("AAPL", DAYS[0][:7])).write_bytes(b"PAR1 not really")
    ran = pipeline.run(AGGREGATE)
    assert ran.code == 1
    assert "symbol=AAPL/month=2025-09/bars.parquet is not a readable Parquet file" in ran.error
    assert pipeline.warehouse() == {table: [] for table in TABLES}


def test_a_session_of_the_manifest_that_is_not_in_the_file_stops_the_load(pipeline: Pipeline) -> None:
    pipeline.stage(first_bars("AAPL", DAYS[:1]).values())
    pipeline.process()
    missing = Partition("AAPL", DAYS[0][:7], 4, {DAYS[1]: 1})
    pipeline.lake.publish(Manifest("20990101T000000Z-process-x", datetime(2099, 1, 1, tzinfo=UTC), (missing,)))
    ran = pipeline.run(AGGREGATE)
    assert ran.code == 1
    assert f"AAPL {DAYS[1]}: the aggregates do not hold the same bars" in ran.error
    assert pipeline.warehouse() == {table: [] for table in TABLES}


@pytest.mark.parametrize("text", ['{"run_id": "x"', '{"run_id": "x", "created_at": "2025-07-02", "partitions": [{}]}'])
def test_a_damaged_manifest_stops_the_load_and_is_named(pipeline: Pipeline, text: str) -> None:
    folder = Path(pipeline.lake.root) / "manifests"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text(text)
    ran = pipeline.run(AGGREGATE)
    assert ran.code == 1
    assert "x.json cannot be read" in ran.error
