"""A live demo's market steps from bar to bar and from session to session, and stops when loading a session fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from barflow.errors import BarflowError
from local.live import LiveClock, keep_ticking

CLOSE = datetime(2025, 7, 23, 20, 0, tzinfo=UTC)
BEFORE, NEXT_DAY = datetime(2025, 7, 23, 19, 50, tzinfo=UTC), datetime(2025, 7, 24, 13, 45, tzinfo=UTC)


class Ticks:
    """A fake run that records the clock at each tick."""

    def __init__(self, clock: LiveClock) -> None:
        self.clock, self.at, self.next_day = clock, list[datetime](), threading.Event()

    def ingest(self, log: object) -> Ticks:
        return self

    def tick(self, symbols: Sequence[str]) -> None:
        self.at.append(self.clock.now)
        if self.clock.now > CLOSE:
            self.next_day.set()


def run_market(at_close: Callable[[Ticks], None]) -> list[datetime]:
    clock = LiveClock(BEFORE)
    ticks = Ticks(clock)
    keep_ticking(
        ticks.tick, clock, ["TSLA"], end=NEXT_DAY, speed=1e9, at_close=lambda: at_close(ticks), log=lambda text: None
    )
    return ticks.at


def test_the_next_session_does_not_wait_for_the_load_of_the_last_one() -> None:
    loaded: list[bool] = []
    at = run_market(lambda ticks: loaded.append(ticks.next_day.wait(30)))
    assert loaded == [True]
    assert [f"{moment:%d %H:%M}" for moment in at] == ["23 19:55", "23 20:00", "24 13:35", "24 13:40", "24 13:45"]


def test_a_failed_load_ends_the_market_with_its_error() -> None:
    def fail(ticks: Ticks) -> None:
        raise BarflowError("the warehouse is full")

    with pytest.raises(BarflowError, match="the warehouse is full"):
        run_market(fail)
