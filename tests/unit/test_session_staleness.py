"""The age of the newest bars during a session, also if no tick ever ran."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from barflow.market.instruments import Instruments
from barflow.operations.ticks import session_staleness

OPENS = datetime(2025, 7, 2, 13, 30, tzinfo=UTC)  # 09:30 in New York
SYMBOLS = ("AAPL", "MSFT")


def staleness(now: datetime, **newest: datetime) -> float | None:
    """Return the staleness with these newest bars; each symbol also has a bar of an earlier session."""
    documents = [{"symbol": name, "last": OPENS - timedelta(days=1)} for name in newest]
    documents += [{"symbol": name, "last": last} for name, last in newest.items()]
    staging = SimpleNamespace(counts=lambda symbols, since: documents)
    stores: Any = SimpleNamespace(
        settings=SimpleNamespace(history_sessions=20), staging=staging, instruments=Instruments()
    )
    return session_staleness(stores, SYMBOLS, now)


@pytest.mark.parametrize("now", [OPENS - timedelta(seconds=1), OPENS + timedelta(hours=6.5), OPENS + timedelta(days=2)])
def test_there_is_none_between_sessions_and_on_holidays(now: datetime) -> None:
    assert staleness(now) is None


def test_it_is_that_of_the_symbol_whose_newest_bar_is_oldest() -> None:
    now = OPENS + timedelta(minutes=62)
    newest = {"AAPL": OPENS + timedelta(minutes=55), "MSFT": OPENS + timedelta(minutes=40)}
    assert staleness(now, **newest) == 17 * 60


@pytest.mark.parametrize(
    "newest",
    [{}, {"AAPL": OPENS + timedelta(minutes=55)}, dict.fromkeys(SYMBOLS, OPENS - timedelta(days=1))],
    ids=["no bars", "one symbol has bars", "bars of earlier sessions only"],
)
def test_a_symbol_without_a_bar_of_the_session_counts_from_its_first_bar(newest: dict[str, datetime]) -> None:
    assert staleness(OPENS + timedelta(minutes=60), **newest) == 55 * 60


def test_it_is_zero_until_the_first_bar_can_exist() -> None:
    assert staleness(OPENS + timedelta(minutes=3)) == 0
