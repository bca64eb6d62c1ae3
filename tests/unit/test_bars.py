"""The Bar is defined once, and its invariants hold."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from barflow.market.arrow import arrow_schema, spark_schema
from barflow.market.bars import ARRAYS, FIELDS, Bar, SessionBars, glue_columns, mongo_validator

TS = datetime(2025, 7, 2, 13, 30, tzinfo=UTC)
GOOD: dict[str, Any] = {"ts": TS, "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 7}


@pytest.mark.parametrize(
    "wrong",
    [
        {"open": 0.0},
        {"low": -1.0},
        {"close": float("nan")},
        {"high": float("inf")},
        {"high": 10.2},
        {"low": 10.2},
        {"volume": -1},
        {"revision": -1},
        {"ts": datetime(2025, 7, 2, 13, 30)},
    ],
)
def test_values_that_are_no_bar_raise(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Bar(**{**GOOD, **wrong})


def test_the_bars_of_a_session_are_in_time_order() -> None:
    later = Bar(**{**GOOD, "ts": TS.replace(hour=14)})
    columns = SessionBars.of("AAPL", date(2025, 7, 2), [later, Bar(**GOOD)])
    assert columns.key == "AAPL|5min|2025-07-02"
    assert columns.bars() == [Bar(**GOOD), later]


def test_every_schema_has_the_same_fields_in_the_same_order() -> None:
    names = [item.name for item in FIELDS]
    assert arrow_schema().names == names
    assert [name for name, _ in glue_columns()] == names
    assert [part.split()[0] for part in spark_schema().split(", ")] == [*names, "symbol", "month"]
    assert set(ARRAYS) == set(names) - {"session_date"}
    assert set(mongo_validator()["$jsonSchema"]["properties"]) >= set(names)
