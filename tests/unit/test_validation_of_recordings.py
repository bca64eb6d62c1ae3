"""Validation rejects exactly the recorded bars that open outside the exchange's hours.

The expected bars come from DuckDB, which reads the same files in New York's wall time and knows the half days;
validation reads them in UTC over both changes of daylight saving time.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from recordings import Recordings
from recordings.market import OPENS
from recordings.reading import as_utc, in_session, overnight_gaps, rows_by_symbol

from barflow.market.sessions import NEW_YORK
from barflow.market.validation import Validated, jump_flags, validate

NOW = datetime(2026, 11, 1, tzinfo=UTC)
FIELDS = ("datetime", "open", "high", "low", "close", "volume")
IN_SESSION = """
    t >= time '09:30' and t < case when d in (date '2025-07-03', date '2025-11-28', date '2025-12-24')
    then time '13:00' else time '16:00' end
"""


def validated(path: Path, symbol: str, columns: dict[str, str]) -> Validated:
    """Validate a file's rows as the vendor would send them: newest first, in UTC."""
    with path.open() as lines:
        rows = [{name: row[column] for name, column in columns.items()} for row in csv.DictReader(lines)]
    return validate(symbol, {"symbol": symbol}, [in_utc(row) for row in rows[::-1]], NOW)


def in_utc(row: dict[str, str]) -> dict[str, str]:
    return {**row, "datetime": f"{as_utc(datetime.fromisoformat(row['datetime'])):%Y-%m-%d %H:%M:%S}"}


def oracle(path: Path, stamp: str, query: str) -> list[Any]:
    """Return the rows of a query over the file, with its wall time as d (date) and t (time)."""
    source = f"""(select *, "{stamp}"::timestamp::date as d, "{stamp}"::timestamp::time as t
                 from read_csv('{path}', header=true))"""
    return duckdb.sql(query.format(source=source)).fetchall()


def test_bars_outside_the_session_are_rejected_over_half_days_and_both_clock_changes(recordings: Recordings) -> None:
    for symbol, path in recordings.long.items():
        result = validated(path, symbol, dict(zip(FIELDS, FIELDS, strict=True)))
        ((rows, outside),) = oracle(
            path, "datetime", f"select count(*), count(*) filter (not ({IN_SESSION})) from {{source}}"
        )
        assert (result.received, len(result.rejected)) == (rows, outside), symbol
        assert {item.reasons for item in result.rejected} == {("outside_session",)}
        query = f"select d, count(*), sum(volume)::bigint from {{source}} where {IN_SESSION} group by d order by d"
        sessions = [(day, len(bars), sum(bars.volume)) for day, bars in sorted(result.sessions.items())]
        assert sessions == oracle(path, "datetime", query), symbol
        opens = {day: bars.ts[0].astimezone(NEW_YORK).strftime("%H:%M") for day, bars in result.sessions.items()}
        assert set(opens.values()) == {"09:30"}


def test_gaps_stay_gaps_and_a_bar_without_trades_is_a_bar(recordings: Recordings) -> None:
    columns = dict(zip(FIELDS, ("Date Time", "Open", "High", "Low", "Close", "Volume"), strict=True))
    for symbol, path in recordings.with_gaps.items():
        result = validated(path, symbol, columns)
        ((rows, silent),) = oracle(path, "Date Time", 'select count(*), countif("Volume" = 0) from {source}')
        assert (result.received, result.accepted, result.rejected) == (rows, rows, []), symbol
        per_session = oracle(path, "Date Time", "select d, count(*) from {source} group by d order by d")
        assert [(day, len(bars)) for day, bars in sorted(result.sessions.items())] == per_session
        assert sorted(count for _, count in per_session)[:3] == [77, 77, 78]
        closes = oracle(path, "Date Time", 'select list("Close" order by d, t) from {source}')[0][0]
        assert [close for _, bars in sorted(result.sessions.items()) for close in bars.close] == closes
        assert sum(volume == 0 for bars in result.sessions.values() for volume in bars.volume) == silent
        assert silent == (symbol == "AAPL")


def test_every_recorded_bar_of_a_session_passes_and_the_jumps_are_noted(recordings: Recordings) -> None:
    jumps: dict[str, list[str]] = {}
    for (symbol, day), percent in overnight_gaps(recordings.watch_list).items():
        opens = as_utc(datetime.combine(day, OPENS))
        jumps.setdefault(symbol, []).append(f"price_jump: {percent:+.2f}% at {opens:%Y-%m-%d %H:%M} UTC")
    assert jumps.keys() == {"TSLA"}
    for symbol, rows in rows_by_symbol(recordings.watch_list).items():
        result = validate(symbol, {"symbol": symbol}, [in_utc(row) for row in rows], NOW)
        assert [item.payload for item in result.rejected] == [in_utc(row) for row in rows if not in_session(row)]
        assert result.accepted == sum(map(in_session, rows)), symbol
        assert jump_flags(result.jumps) == jumps.get(symbol, []), symbol
