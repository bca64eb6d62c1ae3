"""An export is adjusted by the archive's actions. The archive stays byte for byte what it was."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clients import Command
from harness import lake_table, publish_actions

from barflow.lake.partitions import Lake
from barflow.market.actions import Dividend, Split

LEARNED = datetime(2024, 7, 1, tzinfo=UTC)
SPLIT, PAID = date(2024, 6, 10), date(2024, 6, 11)
# NVDA around its split: the close of each session, and of two sessions in May.
CLOSES = {date(2024, 5, 30): 1105.0, date(2024, 5, 31): 1096.3, date(2024, 6, 7): 1208.9, SPLIT: 121.8, PAID: 120.9}


def bars(days: dict[date, float]) -> pa.Table:
    rows = [
        {
            "ts": datetime(day.year, day.month, day.day, 13, 30 + 5 * number, tzinfo=UTC),
            "session_date": day,
            **{"open": close - 1, "high": close + 2, "low": close - 2, "close": close - (1 - number) * 0.5},
            **{"volume": 101 + number},
        }
        for day, close in days.items()
        for number in range(2)
    ]
    return lake_table(rows)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    for month in (5, 6):
        made.replace("NVDA", f"2024-0{month}", bars({day: it for day, it in CLOSES.items() if day.month == month}))
    return made


@pytest.fixture
def export(barflow: Command, tmp_path: Path) -> Command:
    """Return the function that runs `barflow export … --to out.parquet`."""
    fixed = ("--symbol", "NVDA", "--start", "2024-05-31", "--end", "2024-06-11", "--force")
    return lambda *arguments: barflow("export", *fixed, "--to", str(tmp_path / "out.parquet"), *arguments)


SPLIT_OF_NVDA = Split("NVDA", SPLIT, 10.0, "endpoint", LEARNED)
# The first one is before the export: its close is in no file, and is not needed.
DIVIDENDS = [Dividend("NVDA", day, 0.4, "USD", "endpoint", LEARNED) for day in (date(2023, 3, 7), PAID)]


def closes(tmp_path: Path) -> list[float]:
    table = pq.read_table(tmp_path / "out.parquet")
    found: list[float] = table["close"].to_pylist()[1::2]
    return found


def test_a_list_of_the_rules_file_names_the_symbols(
    export: Command, tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_actions(lake, "NVDA", SPLIT_OF_NVDA)
    file = tmp_path / "alerts.toml"
    file.write_text('[lists]\nchips = ["NVDA"]\nbanks = ["JPM"]\n')
    monkeypatch.setenv("BARFLOW_ALERTS_FILE", str(file))
    code, _, _ = export("--symbols", "@chips")
    assert code == 0
    assert closes(tmp_path) == [1096.3, 1208.9, 121.8, 120.9]
    code, _, err = export("--symbols", "AAPL, @cars")
    assert code == 2
    assert f"--symbols: no list is named @cars; lists are @chips, @banks (alert rules {file})" in err


def test_adjusted_prices_follow_the_formulas_and_raw_ones_stay(export: Command, tmp_path: Path, lake: Lake) -> None:
    publish_actions(lake, "NVDA", SPLIT_OF_NVDA, *DIVIDENDS)
    code, out, err = export()
    assert (code, "adjusted for" in out + err) == (0, False)
    raw = pq.read_table(tmp_path / "out.parquet")
    assert raw["close"].to_pylist()[1::2] == [1096.3, 1208.9, 121.8, 120.9]
    assert raw["volume"].type == pa.int64()
    code, out, err = export("--adjust", "splits")
    assert code == 0
    assert err.startswith("NVDA is adjusted for: split 10 on 2024-06-10 (endpoint)\n")
    assert closes(tmp_path) == pytest.approx([109.63, 120.89, 121.8, 120.9], rel=1e-12)
    assert pq.read_table(tmp_path / "out.parquet")["volume"].to_pylist() == [1010, 1020, 1010, 1020, 101, 102, 101, 102]
    assert export("--adjust", "all")[0] == 0
    oracle = f"""
        select symbol, ts, session_date,
               {", ".join(f"{name} * scale / ratio as {name}" for name in ("open", "high", "low", "close"))},
               volume * ratio as volume, revision
        from (select *, case when session_date < '{SPLIT}' then 10.0 else 1.0 end as ratio,
                     case when session_date < '{PAID}' then 1 - 0.4 / 121.8 else 1.0 end as scale
              from read_parquet('{lake.root}/bars_5min/**/*.parquet', hive_partitioning = true)
              where session_date between '2024-05-31' and '2024-06-11')
        order by ts"""
    difference = f"""
        select count(*), max(greatest(abs(mine.close / theirs.close - 1), abs(mine.open / theirs.open - 1),
                                      abs(mine.volume / theirs.volume - 1)))
        from read_parquet('{tmp_path}/out.parquet') mine join ({oracle}) theirs using (symbol, ts)"""
    count, worst = duckdb.sql(difference).fetchall()[0]
    assert count == 8
    assert worst < 1e-9


def test_actions_that_were_never_fetched_are_asked_for(export: Command, lake: Lake) -> None:
    unknown = "the archive does not know the splits of NVDA"
    code, _, err = export("--adjust", "splits")
    assert (code, f"{unknown}, so these prices are as stored. Fetch them with `barflow actions refresh`" in err) == (
        0,
        True,
    )
    publish_actions(lake, "NVDA", SPLIT_OF_NVDA, kinds=["split"])
    code, _, err = export("--adjust", "splits")
    assert (code, unknown in err) == (0, False)
    code, _, err = export("--adjust", "all")
    assert (code, err.count("\n")) == (2, 1)
    assert "the archive does not know the dividends of NVDA: they were never fetched" in err
    code, _, err = export("--adjust", "split")
    assert (code, err) == (2, "error: --adjust split: choose none, splits, all\n")


def test_a_dividend_without_the_close_before_it_is_named(export: Command, lake: Lake) -> None:
    publish_actions(lake, "NVDA", SPLIT_OF_NVDA, Dividend("NVDA", date(2024, 6, 13), 0.01, "USD", "file", LEARNED))
    code, _, err = export("--adjust", "all")
    assert code == 1
    assert "the dividend of 0.01 dollars on 2024-06-13 cannot be applied: the archive has no bars" in err


def test_a_start_before_the_archive_needs_no_close_from_before_it(export: Command, lake: Lake, tmp_path: Path) -> None:
    publish_actions(lake, "NVDA", SPLIT_OF_NVDA, *DIVIDENDS)
    assert export("--adjust", "all")[0] == 0
    expected = closes(tmp_path)
    code, _, err = export("--adjust", "all", "--start", "2023-01-03")
    assert (code, closes(tmp_path)[1:]) == (0, expected), err
