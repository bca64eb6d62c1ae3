"""Each recording holds what is known of it: the real ones as published, the synthetic ones with every flaw.

Other tests compute what they expect from the files. These constants keep the files from changing unnoticed.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import exchange_calendars
import pytest
from recordings import Recordings, synthetic
from recordings.market import CLOSES_EARLY, closes, sessions
from recordings.reading import in_session, overnight_gaps, rows_by_symbol, wall_clock

KNOWN: dict[str, dict[str, Any]] = {
    "synthetic": {
        "rows of the watch list": {"AAPL": 1500, "TSLA": 1500, "NVDA": 1504},
        "of them outside the session": {"AAPL": 0, "TSLA": 0, "NVDA": 85},
        "its sessions": ("2025-10-31", "2025-11-28", 20),
        "the first bar of AAPL": ("2025-10-31 11:30:00", "209.47000"),
        "the last close of AAPL": "205.100006",
        "overnight gaps": {"TSLA 2025-11-05": -7.6, "TSLA 2025-11-18": -6.9, "TSLA 2025-11-24": 5.6},
        "rows of the long files": {"AAPL": 5714, "NVDA": 5944},
        "of them outside 09:30 to 16:00": {"AAPL": 36, "NVDA": 229},
        "of them after the close of a half day": {"AAPL": 1, "NVDA": 38},
        "their sessions": {"AAPL": ("2025-06-30", "2026-03-13", 75), "NVDA": ("2025-06-30", "2026-03-13", 75)},
        "rows of the files with gaps": {"AAPL": 466, "TSLA": 466},
        "their sessions by number of bars": {"AAPL": {77: 2, 78: 4}, "TSLA": {77: 2, 78: 4}},
        "their bars without trades": {"AAPL": 1, "TSLA": 0},
    },
    "real": {
        "rows of the watch list": dict.fromkeys(("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA"), 1500),
        "of them outside the session": dict.fromkeys(("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA"), 0),
        "its sessions": ("2025-07-02", "2025-07-30", 20),
        "the first bar of AAPL": ("2025-07-02 11:30:00", "211.49001"),
        "the last close of AAPL": "209.020004",
        "overnight gaps": {"TSLA 2025-07-07": -7.57, "TSLA 2025-07-24": -6.89},
        "rows of the long files": {"AAPL": 16400, "GOOG": 16375, "MSFT": 16524, "TSLA": 16776, "NVDA": 16989},
        "of them outside 09:30 to 16:00": {"AAPL": 193, "GOOG": 167, "MSFT": 316, "TSLA": 568, "NVDA": 776},
        "of them after the close of a half day": {"AAPL": 0, "GOOG": 1, "MSFT": 1, "TSLA": 0, "NVDA": 5},
        "their sessions": dict.fromkeys(("AAPL", "GOOG", "MSFT", "TSLA", "NVDA"), ("2025-05-12", "2026-03-12", 210)),
        "rows of the files with gaps": dict.fromkeys(("AAPL", "GOOG", "MSFT", "TSLA"), 1480),
        "their sessions by number of bars": {name: {77: 2, 78: 17} for name in ("AAPL", "GOOG", "MSFT", "TSLA")},
        "their bars without trades": {"AAPL": 1, "GOOG": 0, "MSFT": 0, "TSLA": 0},
    },
}


@pytest.mark.parametrize("origin", [*KNOWN])
def test_recordings_hold_what_is_known_of_them(origin: str, request: pytest.FixtureRequest) -> None:
    assert facts(request.getfixturevalue(f"{origin}_recordings")) == KNOWN[origin]


def facts(recordings: Recordings) -> dict[str, Any]:
    """Return the facts of KNOWN, counted in the files."""
    watched = rows_by_symbol(recordings.watch_list)
    days = sorted({wall_clock(row).date() for rows in watched.values() for row in rows})
    apple = watched["AAPL"]
    regular = "datetime::time >= '09:30' and datetime::time < '16:00'"
    after_half_day = (
        f"{regular} and datetime::time >= '13:00' and datetime::date in ('2025-07-03', '2025-11-28', '2025-12-24')"
    )
    return {
        "rows of the watch list": {symbol: len(rows) for symbol, rows in watched.items()},
        "of them outside the session": {
            symbol: sum(not in_session(row) for row in rows) for symbol, rows in watched.items()
        },
        "its sessions": (str(days[0]), str(days[-1]), len(days)),
        "the first bar of AAPL": (apple[-1]["datetime"], apple[-1]["open"]),
        "the last close of AAPL": apple[0]["close"],
        "overnight gaps": {
            f"{symbol} {day}": round(gap, 2) for (symbol, day), gap in overnight_gaps(recordings.watch_list).items()
        },
        "rows of the long files": counts(recordings.long, "true"),
        "of them outside 09:30 to 16:00": counts(recordings.long, f"not ({regular})"),
        "of them after the close of a half day": counts(recordings.long, after_half_day),
        "their sessions": {
            symbol: one(path, "min(datetime::date)::text, max(datetime::date)::text, count(distinct datetime::date)")
            for symbol, path in recordings.long.items()
        },
        "rows of the files with gaps": counts(recordings.with_gaps, "true"),
        "their sessions by number of bars": {
            symbol: dict(Counter(Counter(row["Date Time"][:10] for row in csv.DictReader(path.open())).values()))
            for symbol, path in recordings.with_gaps.items()
        },
        "their bars without trades": counts(recordings.with_gaps, '"Volume" = 0'),
    }


def counts(files: Mapping[str, Path], condition: str) -> dict[str, int]:
    """Return by symbol how many rows of its file meet a condition."""
    return {symbol: one(path, f"count(*) filter ({condition})")[0] for symbol, path in files.items()}


def one(path: Path, columns: str) -> tuple[Any, ...]:
    """Return one row of aggregates over a file."""
    (found,) = duckdb.sql(f"select {columns} from read_csv('{path}')").fetchall()
    return tuple(found)


def test_the_synthetic_recordings_are_the_same_each_time(synthetic_recordings: Recordings, tmp_path: Path) -> None:
    synthetic(tmp_path)
    assert files(tmp_path) == files(synthetic_recordings.watch_list.parent)


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("first", "last"), [(date(2024, 5, 1), date(2024, 5, 8)), (date(2025, 6, 30), date(2026, 3, 13))]
)
def test_the_synthetic_sessions_equal_the_exchange_calendar(first: date, last: date) -> None:
    calendar = exchange_calendars.get_calendar("XNYS", start="2024-01-02", end="2026-12-31")
    local = calendar.schedule["close"].dt.tz_convert("America/New_York").loc[str(first) : str(last)]
    assert {day: closes(day) for day in sessions(first, last)} == {
        day.date(): ends.time() for day, ends in local.items()
    }


def test_the_synthetic_watch_list_has_the_text_of_twelve_data_and_every_flaw(synthetic_recordings: Recordings) -> None:
    watched = rows_by_symbol(synthetic_recordings.watch_list)
    decimals: Counter[int] = Counter()
    for rows in watched.values():
        clocks = [wall_clock(row) for row in rows]
        assert clocks == sorted(set(clocks), reverse=True), "newest first"
        for row in rows:
            prices = [row[name] for name in ("open", "high", "low", "close")]
            opened, high, low, closed = map(float, prices)
            assert low <= min(opened, closed) <= max(opened, closed) <= high
            decimals.update(len(price.partition(".")[2]) for price in prices)
    assert set(decimals) == set(range(10)), "plain integers up to nine decimals"
    assert decimals[5] > sum(decimals.values()) / 2
    untidy = [row for row in watched["NVDA"] if in_session(row)]
    assert {wall_clock(row).time() >= CLOSES_EARLY for row in watched["NVDA"] if not in_session(row)} == {True, False}
    assert sum(row["volume"] == "0" for row in untidy) == 7
    per_session = Counter(wall_clock(row).date() for row in untidy)
    assert len(per_session) == 19, "one session is missing"
    assert [per_session[date(2025, 11, day)] for day in (4, 6, 28)] == [77, 76, 42]


def test_some_synthetic_bars_were_revised_and_one_came_late(synthetic_recordings: Recordings) -> None:
    for symbol, path in synthetic_recordings.long.items():
        final = {row["datetime"]: row for row in csv.DictReader(path.open())}
        first = {row["datetime"]: row for row in csv.DictReader(synthetic_recordings.long_as_first_seen[symbol].open())}
        changed = {moment: {name for name in row if row[name] != final[moment][name]} for moment, row in first.items()}
        assert {moment: names for moment, names in changed.items() if names} == {
            "2025-10-27 10:00:00": {"high", "close"},
            "2025-11-28 12:55:00": {"volume"},
            "2025-12-09 15:55:00": {"high", "close"},
            "2025-12-10 09:30:00": {"high", "close"},
        }
        assert final.keys() - first.keys() == {"2025-11-20 14:05:00"}
