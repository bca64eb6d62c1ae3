"""How does a demo show a market that moves? Its clock steps from bar to bar, some of the market's minutes each second.

The clock starts a few bars before an alert that is known to fire, so that a visitor sees one within a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta

from barflow.alerts.evaluate import judge_history
from barflow.alerts.rules import RuleBook
from barflow.errors import BadInputError
from barflow.market.bars import SessionBars
from barflow.market.sessions import BAR, last_sessions, new_york, session_at, sessions_between
from barflow.market.validation import FIELD_NAMES, TIME_FORMAT, validate
from barflow.pipeline.stores import Run
from emulators.twelvedata.bar_source import BarSource

Say = Callable[[str], None]
# Sessions that are kept for the live part, and those before them that the rules look back on.
LIVE_SESSIONS, HISTORY_SESSIONS = 5, 25
BARS_BEFORE_ALERT = 3
# As far as the clock looks ahead for its next session.
AHEAD = timedelta(days=10)


class LiveClock:
    """The market's clock of a live demo (UTC): stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def moments(self, end: datetime | None) -> Iterator[datetime]:
        """Moves to the close of each next bar of a session, up to ``end``; yields it before it moves."""
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
    """The moment (UTC) at which a live demo begins: a few bars before the first alert of the last sessions.

    Raises BadInputError where the source has too few sessions before ``until``.
    """
    live = last_sessions(until, LIVE_SESSIONS)
    first = last_sessions(until, LIVE_SESSIONS + HISTORY_SESSIONS)[0].opens
    if source.first > live[0].opens:
        raise BadInputError(f"--live needs more than {LIVE_SESSIONS} sessions, and there are fewer. Leave --live out.")
    events = judge_history(book, sessions_of(source, symbols, max(first, source.first), until), until)
    fired = [event.bar_start for event in events if event.bar_start >= live[0].opens]
    target = min(fired, default=live[0].opens)
    day = new_york(target).date()
    slots = [slot for traded in sessions_between(day - AHEAD, day) for slot in traded.slots if slot < target]
    return slots[-BARS_BEFORE_ALERT] + BAR


def sessions_of(source: BarSource, symbols: Sequence[str], first: datetime, until: datetime) -> Iterator[SessionBars]:
    """The source's bars that validation accepts."""
    for symbol in symbols:
        rows = source.rows(symbol, first, until)
        values = [dict(zip(FIELD_NAMES, (f"{row[0]:{TIME_FORMAT}}", *row[1:]), strict=True)) for row in rows]
        yield from validate(symbol, {}, values, until).sessions.values()


def keep_ticking(
    run: Run,
    clock: LiveClock,
    symbols: Sequence[str],
    *,
    end: datetime | None,
    speed: float,
    at_close: Callable[[], None],
    say: Say,
) -> None:
    """A tick at the close of each bar, ``speed`` times as fast as the market; ``at_close`` after each session.

    That runs beside the ticks, which do not wait for it. Returns once the bars are at their end; raises what
    ``at_close`` raised.
    """
    ingest, pause = run.ingest(say), BAR.total_seconds() / speed
    due = time.monotonic() + pause
    beside = ThreadPoolExecutor(1)
    closing: list[Future[None]] = []
    try:
        for moment in clock.moments(end):
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - pause) + pause
            clock.now = moment
            ingest.tick(symbols)
            if session_at(moment) is None:
                say(f"{new_york(moment):%A, %d %B}: the session is over; publishing and loading it")
                closing.append(beside.submit(at_close))
            while closing and closing[0].done():
                closing.pop(0).result()
        for last in closing:
            last.result()
    finally:
        beside.shutdown(wait=False, cancel_futures=True)  # a Ctrl-C does not wait; what is unfinished is done again
