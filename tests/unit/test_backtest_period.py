"""The period of a backtest ends with the newest session that has bars, and names what is missing."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from test_exports import put, rows

from barflow.backtest.period import period
from barflow.errors import BadInputError
from barflow.lake.partitions import Lake
from barflow.market.instruments import Instruments
from barflow.market.sessions import session

# MSFT has bars on the last day of AAPL and two sessions later; nothing is newer.
AAPL_DAYS = (date(2025, 6, 30), date(2025, 7, 1), date(2025, 7, 8))
NEWEST = date(2025, 7, 10)


def closes(day: date) -> datetime:
    found = session(day)
    assert found is not None
    return found.closes


MONTHS_LATER = closes(NEWEST) + timedelta(days=100)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    put(made, "AAPL", [item for day in AAPL_DAYS for item in rows(day, 200.0)])
    put(made, "MSFT", [item for day in (AAPL_DAYS[-1], NEWEST) for item in rows(day, 500.0)])
    return made


@pytest.mark.parametrize(
    ("symbols", "start", "end", "expected"),
    [
        (["AAPL", "MSFT"], None, None, (date(2025, 6, 1), NEWEST)),
        (["AAPL"], None, None, (date(2025, 6, 1), AAPL_DAYS[2])),
        (["AAPL", "MSFT"], AAPL_DAYS[1], date(2025, 7, 9), (AAPL_DAYS[1], AAPL_DAYS[2])),
        (["AAPL"], None, date(2025, 7, 6), (date(2025, 6, 1), AAPL_DAYS[1])),
        (["AAPL"], None, date(2025, 6, 30), (date(2025, 6, 1), AAPL_DAYS[0])),
    ],
)
def test_it_ends_with_the_newest_session_that_has_bars(
    lake: Lake, symbols: list[str], start: date | None, end: date | None, expected: tuple[date, date]
) -> None:
    found = period(lake, Instruments(), symbols, start, end, MONTHS_LATER)
    assert found == (*expected, closes(expected[1]))


def test_it_ends_at_the_clock_of_the_market(lake: Lake) -> None:
    now = closes(NEWEST) - timedelta(hours=2)
    assert period(lake, Instruments(), ["AAPL", "MSFT"], None, None, now) == (date(2025, 6, 1), NEWEST, now)


@pytest.mark.parametrize(
    ("symbols", "start", "end", "message"),
    [
        (["NOPE"], None, None, "has no bars of NOPE from the first bar to the newest. Nothing was evaluated."),
        (["AAPL"], date(2025, 7, 9), None, "has no bars of AAPL from 2025-07-09 to the newest"),
        (["AAPL"], None, date(2025, 6, 27), "has no bars of AAPL from the first bar to 2025-06-27"),
        ([f"A{letter}" for letter in "ABCDEF"], None, None, "has no bars of AA, AB, AC, AD, AE … from"),
    ],
)
def test_an_empty_period_is_refused(
    lake: Lake, symbols: list[str], start: date | None, end: date | None, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        period(lake, Instruments(), symbols, start, end, MONTHS_LATER)
