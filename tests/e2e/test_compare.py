"""`barflow compare` finds every value of a session that differs from the archive, and nothing else."""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg
import pytest
from commands import Replayed
from console import Ended, in_process

from rehearsal.oracle import Oracle


def compare(replayed: Replayed, *options: object) -> Ended:
    return in_process("compare", "--state", replayed.state, *options)


@pytest.fixture
def newest(oracle: Oracle) -> date:
    """Return the newest session of the recording."""
    return max(day for _, day in oracle.table("daily_metrics"))


def test_a_loaded_session_is_equal(replayed: Replayed, oracle: Oracle, newest: date) -> None:
    found = compare(replayed, "--json").object
    wanted = {
        name: sum(row["session_date"] == newest for row in oracle.table(name).values())
        for name in ("bar_5min", "bar_30min", "bar_1h", "bar_1d", "daily_metrics")
    }
    assert found == {
        "session": str(newest), "equal": True, "rows": wanted, "differing": 0, "differences": [],
    }  # fmt: skip
    shown = compare(replayed, "--session", newest)
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "every row is equal")


def test_a_changed_value_is_found_and_exits_1(replayed: Replayed, newest: date) -> None:
    one = "from market.daily_metrics where session_date = %s and symbol = 'AAPL'"
    change = "update market.daily_metrics set sma_5 = %s where session_date = %s and symbol = 'AAPL'"
    with psycopg.connect(replayed.stores.warehouse_dsn, autocommit=True) as owner:
        ((before,),) = owner.execute(f"select sma_5 {one}".encode(), (newest,)).fetchall()
        owner.execute(change, (before * 1.001, newest))
        try:
            ended = compare(replayed)
        finally:
            owner.execute(change, (before, newest))
    assert ended.code == 1
    assert f"differs: daily_metrics AAPL {newest} sma_5 is" in ended.out
    assert ended.out.splitlines()[-1] == "1 values differ"
    assert compare(replayed).code == 0


@pytest.mark.parametrize(
    ("day", "message"), [("2025-07-04", "the exchange was closed"), ("2019-01-02", "has no bar of")]
)
def test_a_day_without_bars_is_an_error(replayed: Replayed, day: str, message: str) -> None:
    ended: Any = compare(replayed, "--session", day)
    assert message in ended.error
