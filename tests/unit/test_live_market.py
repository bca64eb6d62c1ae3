"""A live demo's market steps from bar to bar, over the close too, and stops where publishing a session failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from barflow.errors import BarflowError
from local.live import LiveClock, keep_ticking

CLOSE = datetime(2025, 7, 23, 20, 0, tzinfo=UTC)
BEFORE, NEXT_DAY = datetime(2025, 7, 23, 19, 50, tzinfo=UTC), datetime(2025, 7, 24, 13, 45, tzinfo=UTC)


class Ticks:
    """In the place of a run: notes at which moments it was asked to tick."""

    def __init__(self, clock: LiveClock) -> None:
        self.clock, self.at, self.next_day = clock, list[datetime](), threading.Event()

    def ingest(self, say: object) -> Ticks:
        return self

    def tick(self, symbols: Sequence[str]) -> None:
        self.at.append(self.clock.now)
        if self.clock.now > CLOSE:
            self.next_day.set()


def go(at_close: Callable[[Ticks], None]) -> list[datetime]:
    clock = LiveClock(BEFORE)
    ticks = Ticks(clock)
    run: Any = ticks
    keep_ticking(run, clock, ["TSLA"], end=NEXT_DAY, speed=1e9, at_close=lambda: at_close(ticks), log=lambda text: None)
    return ticks.at


def test_the_next_session_does_not_wait_until_the_last_one_is_published() -> None:
    published: list[bool] = []
    at = go(lambda ticks: published.append(ticks.next_day.wait(30)))
    assert published == [True]
    assert [f"{moment:%d %H:%M}" for moment in at] == ["23 19:55", "23 20:00", "24 13:35", "24 13:40", "24 13:45"]


def test_a_session_that_cannot_be_published_ends_the_market_with_the_reason() -> None:
    def fail(ticks: Ticks) -> None:
        raise BarflowError("the warehouse is full")

    with pytest.raises(BarflowError, match="the warehouse is full"):
        go(fail)
