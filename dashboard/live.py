"""Server-sent events: one thread per process, the watcher, polls MongoDB and sends each change to every open page.

A page that falls too far behind is disconnected. It connects again and reads everything again. The watcher survives
every exception, and reports it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from pydantic import BaseModel

from barflow.errors import BarflowError
from dashboard.models import Market, WatchRow
from dashboard.staged import Staged
from dashboard.watch import market_at

# Events that may wait for one page.
MAX_QUEUED = 64
# Open pages: of one visitor, and of all.
MAX_PAGES_OF_VISITOR, MAX_PAGES = 10, 100
# A poll that takes longer is stuck. MongoDB's driver gives up earlier, also on a read that it repeats.
STUCK_SECONDS = 180.0
Event = tuple[str, str]
Page = asyncio.Queue[Event | None]
log = logging.getLogger(__name__)


class ChangedRows(BaseModel):
    """The rows of the watch list that changed."""

    market: Market
    rows: list[WatchRow]


class Outage(BaseModel):
    """Why no new data can be read at the moment."""

    detail: str


class Live:
    """Polls ``staged`` from ``start`` to ``close``, and publishes what changed."""

    def __init__(
        self,
        staged: Staged,
        symbols: Callable[[], Iterable[str]],
        rows: Callable[[Sequence[str]], list[WatchRow]],
        clock: Callable[[], datetime],
        seconds: float,
    ) -> None:
        """Prepare to poll every ``seconds``.

        ``symbols`` returns the symbols to start with, ``rows`` their rows of the watch list, ``clock`` the market's
        time (UTC).
        """
        self._staged, self._symbols, self._rows = staged, symbols, rows
        self._clock, self._seconds = clock, seconds
        self._pages: dict[Page, str] = {}  # with their visitors
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="page watcher", daemon=True)
        self._finished = time.monotonic()
        self._started = False
        self._minute: datetime | None = None
        self._outage = self._failure = ""

    def start(self) -> None:
        """Start polling. Call it in the event loop that serves the pages."""
        self._loop = asyncio.get_running_loop()
        self._finished = time.monotonic()
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the first poll. Return False if it takes longer."""
        return self._ready.wait(seconds)

    def close(self) -> None:
        """End every stream and the thread. Safe to call from any thread, and more than once."""
        self._stop.set()
        self._in_loop(self._broadcast, None)
        if self._thread.ident is not None:
            self._thread.join(timeout=5)

    def stopped(self) -> str:
        """Return why the watcher does not work any more, or nothing while it does."""
        if self._stop.is_set() or self._thread.ident is None:
            return ""
        if not self._thread.is_alive():
            return "The page's watcher of new bars and alerts ended."
        waited = time.monotonic() - self._finished
        return f"The page's watcher has not finished a poll for {waited:.0f} s." if waited > STUCK_SECONDS else ""

    def problem(self) -> str:
        """Return why the watcher has stopped or its last poll failed, or nothing. A store outage is no failure."""
        return self.stopped() or self._failure

    def has_room(self, visitor: str) -> bool:
        """Return whether this visitor may open another page."""
        return len(self._pages) < MAX_PAGES and [*self._pages.values()].count(visitor) < MAX_PAGES_OF_VISITOR

    @contextmanager
    def page(self, visitor: str) -> Iterator[Page]:
        """Open a page of a visitor for the block. It receives every event from now on."""
        page = Page()
        self._pages[page] = visitor
        try:
            yield page
        finally:
            self._pages.pop(page, None)

    async def events(self, page: Page, seconds: float | None) -> AsyncIterator[Event]:
        """Yield the events of a page, as (name, JSON), for at most so many seconds."""
        end = None if seconds is None else time.monotonic() + seconds
        with suppress(TimeoutError):
            while not self._stop.is_set():
                event = await asyncio.wait_for(page.get(), None if end is None else end - time.monotonic())
                if event is None:
                    return
                yield event

    def end(self, visitor: str) -> None:
        """End every stream of a visitor. Call it in the event loop."""
        for page in [page for page, other in self._pages.items() if other == visitor]:
            self._send(page, None)

    def _broadcast(self, event: Event | None) -> None:
        """Queue an event for every page, or None to end every stream. Runs in the event loop."""
        for page in [*self._pages]:
            self._send(page, None if page.qsize() >= MAX_QUEUED else event)

    def _send(self, page: Page, event: Event | None) -> None:
        page.put_nowait(event)
        if event is None:
            del self._pages[page]

    def _publish(self, name: str, body: BaseModel) -> None:
        self._in_loop(self._broadcast, (name, body.model_dump_json()))

    def _in_loop(self, call: Callable[[Event | None], None], event: Event | None) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and no page is open any more
                self._loop.call_soon_threadsafe(call, event)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
                self._outage = self._failure = ""
            except BarflowError as error:
                self._failure = ""
                self._report(str(error))
            except Exception as error:
                failure = f"The page's watcher failed: {type(error).__name__}. It continues. Its log has the details."
                if failure != self._failure:
                    log.exception("the page's watcher failed; it continues")
                self._failure = failure
                self._report(failure)
            self._finished = time.monotonic()
            self._ready.set()
            self._stop.wait(self._seconds)

    def _report(self, outage: str) -> None:
        if outage != self._outage:
            self._publish("outage", Outage(detail=outage))
        self._outage = outage

    def _turn(self) -> None:
        """Read once what changed, and publish it. Publish the clock once a minute."""
        now = self._clock()
        if (minute := now.replace(second=0, microsecond=0)) != self._minute:
            self._publish("clock", market_at(now))
            self._minute = minute
        if not self._started:
            self._staged.start(self._symbols(), now)
            self._started = True
        self._poll(recovered=bool(self._outage))

    def _poll(self, *, recovered: bool) -> None:
        """Publish what changed. After an outage publish every row: a page may have missed some."""
        changed = self._staged.refresh()
        if recovered:
            changed = [*self._symbols()]
        if changed or recovered:
            self._publish("bars", ChangedRows(market=market_at(self._clock()), rows=self._rows(changed)))
        for alert in self._staged.new_alerts():
            self._publish("alert", alert)
