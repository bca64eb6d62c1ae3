"""The rows that `barflow compare` expects of a session equal the rehearsal's oracle, and each difference is found."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime
from typing import Any

import pytest
from harness import lake_table

from barflow.lake.partitions import Lake
from barflow.market.bars import OF_A_BAR, SessionBars
from barflow.market.sessions import session
from barflow.operations.verify.rows import METRICS, WIDTHS, _differences, expected_rows
from local.live import sessions_of
from local.synthetic import SyntheticBars
from rehearsal.oracle import Oracle, differences

SYMBOLS = ("AAPL", "BRK/B")
FIRST, UNTIL = datetime(2025, 9, 2, 13, 30, tzinfo=UTC), datetime(2025, 11, 29, tzinfo=UTC)
HALF_DAY = date(2025, 11, 28)
MISSING = (0, 7, 8, 41)  # bars of the half day: its first, two within, and its last


@pytest.fixture(scope="module")
def sessions() -> list[SessionBars]:
    """Return 62 sessions of each symbol, the last of which is a half day. Some bars of it are missing."""
    found = []
    for item in sessions_of(SyntheticBars(), SYMBOLS, FIRST, UNTIL):
        bars = item.bars()
        if item.session_date == HALF_DAY:
            bars = [bar for number, bar in enumerate(bars) if number not in MISSING]
        found.append(SessionBars.of(item.symbol, item.session_date, bars))
    return found


@pytest.fixture(scope="module")
def lake(sessions: list[SessionBars], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Return a lake with the sessions."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for item in sessions:
        columns = {name: getattr(item, name) for name in OF_A_BAR}
        for values in zip(*columns.values(), strict=True):
            row: dict[str, Any] = dict(zip(columns, values, strict=True)) | {"session_date": item.session_date}
            rows[item.symbol, f"{item.session_date:%Y-%m}"].append(row)
    made = Lake(str(tmp_path_factory.mktemp("lake")))
    for (symbol, month), held in rows.items():
        made.replace(symbol, month, lake_table(held))
    return made


@pytest.fixture(scope="module")
def oracle(sessions: list[SessionBars]) -> Oracle:
    return Oracle.of_sessions(sessions)


@pytest.mark.parametrize("day", [date(2025, 9, 2), date(2025, 9, 22), date(2025, 9, 30), HALF_DAY])
def test_the_expected_rows_are_those_of_the_other_oracle(lake: Lake, oracle: Oracle, day: date) -> None:
    """The windows of the metrics are full only on the last of these days."""
    traded = session(day)
    assert traded is not None
    for table, rows in expected_rows(lake, traded).items():
        wanted = {key: row for key, row in oracle.table(table).items() if row["session_date"] == day}
        assert len(rows) > 1
        assert differences({key: dict(row) for key, row in rows.items()}, wanted) == []


def test_every_kind_of_difference_is_found(lake: Lake) -> None:
    traded = session(HALF_DAY)
    assert traded is not None
    expected = expected_rows(lake, traded)
    assert set(expected) == {*WIDTHS, METRICS}
    for rows in expected.values():
        assert list(_differences(rows, rows)) == []
    rows = expected["bar_1h"]
    first, second, *rest = sorted(rows)
    stored = {key: dict(rows[key]) for key in [second, *rest]}
    stored["MSFT", traded.opens] = {}
    stored[second]["close"] *= 1 + 1e-8
    stored[second]["volume"] += 1
    stored[second]["load_id"] = "a column that the oracle does not have"
    found = list(_differences(stored, rows))
    assert found[:2] == ["AAPL 2025-11-28T14:30Z is missing", "MSFT 2025-11-28T14:30Z is not in the archive"]
    assert [text.split(" is ")[0] for text in found[2:]] == [
        "AAPL 2025-11-28T15:30Z close",
        "AAPL 2025-11-28T15:30Z volume",
    ]
    assert first == ("AAPL", traded.opens)


def test_a_value_that_is_null_on_one_side_differs(lake: Lake) -> None:
    key = ("AAPL", HALF_DAY)
    assert list(_differences({key: {"sma_50": None}}, {key: {"sma_50": 1.5}})) == [
        "AAPL 2025-11-28 sma_50 is None, expected 1.5"
    ]
