"""The market of a live demo: a clock that steps from bar to bar, faster than the real one.

The clock starts a few bars before an alert that is known to fire, so that a visitor sees one within a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta

from barflow.alerts.rules import RuleBook
from barflow.backtest.run import run
from barflow.backtest.sources import from_sessions
from barflow.errors import BadInputError
from barflow.market.bars import SessionBars
from barflow.market.recordings import validate_rows
from barflow.market.sessions import BAR, last_sessions, new_york, session_at, sessions_between
from barflow.progress import Log
from emulators.twelvedata.bar_source import BarSource

# The live part has LIVE_SESSIONS sessions. Rules look back on HISTORY_SESSIONS before them.
LIVE_SESSIONS, HISTORY_SESSIONS = 5, 25
BARS_BEFORE_ALERT = 3
# How far the clock looks ahead for its next session.
AHEAD = timedelta(days=10)


class LiveClock:
    """The market's clock of a live demo (UTC). It moves only when it is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Return the clock's time."""
        return self.now

    def moments(self, end: datetime | None) -> Iterator[datetime]:
        """Yield the close of each next bar of a session, up to ``end``, and then move the clock to it."""
        while True:
            coming = _next_close(self.now)
            if coming is None or (end is not None and coming > end):
                return
            yield coming
            self.now = coming


def _next_close(now: datetime) -> datetime | None:
    today = new_york(now).date()
    for traded in sessions_between(today, today + AHEAD):
        for slot in traded.slots:
            if slot + BAR > now:
                return slot + BAR
    return None


def live_start(source: BarSource, symbols: Sequence[str], book: RuleBook, until: datetime) -> datetime:
    """Return the moment (UTC) at which a live demo starts: a few bars before the first alert of the last sessions.

    Raises:
        BadInputError: The source has too few sessions before ``until``.
    """
    live = last_sessions(until, LIVE_SESSIONS)
    first = last_sessions(until, LIVE_SESSIONS + HISTORY_SESSIONS)[0].opens
    if source.first > live[0].opens:
        raise BadInputError(f"--live needs more than {LIVE_SESSIONS} sessions, and there are fewer. Leave --live out.")
    found = run(book, from_sessions(sessions_of(source, symbols, max(first, source.first), until)), until)
    fired = [event.bar_start for event in found.events if event.bar_start >= live[0].opens]
    target = min(fired, default=live[0].opens)
    day = new_york(target).date()
    slots = [slot for traded in sessions_between(day - AHEAD, day) for slot in traded.slots if slot < target]
    return slots[-BARS_BEFORE_ALERT] + BAR


def sessions_of(source: BarSource, symbols: Sequence[str], first: datetime, until: datetime) -> Iterator[SessionBars]:
    """Yield the sessions that ingest would store of the source's bars from ``first`` to ``until`` (UTC)."""
    for symbol in symbols:
        yield from validate_rows(symbol, source.rows(symbol, first, until), until).sessions.values()


def keep_ticking(
    tick: Callable[[Sequence[str]], object],
    clock: LiveClock,
    symbols: Sequence[str],
    *,
    end: datetime | None,
    speed: float,
    at_close: Callable[[], None],
    log: Log,
) -> None:
    """Tick at the close of each bar, ``speed`` times as fast as the market, until ``end``.

    ``at_close`` runs after each session, in its own thread: the ticks do not wait for it. Its exception is raised here.
    """
    pause = BAR.total_seconds() / speed
    due = time.monotonic() + pause
    beside = ThreadPoolExecutor(1)
    closing: list[Future[None]] = []
    try:
        for moment in clock.moments(end):
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - pause) + pause
            clock.now = moment
            tick(symbols)
            if session_at(moment) is None:
                log(f"{new_york(moment):%A, %d %B}: the session is over; processing and loading it")
                closing.append(beside.submit(at_close))
            while closing and closing[0].done():
                closing.pop(0).result()
        for last in closing:
            last.result()
    finally:
        beside.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait; the next run does what is left
