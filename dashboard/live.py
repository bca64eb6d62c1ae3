"""Server-sent events: one thread per process polls MongoDB and sends each change to every open page.

A page that falls too far behind is disconnected. It connects again and reads everything anew.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime

from pydantic import BaseModel

from barflow.errors import BarflowError
from dashboard.models import Market, WatchRow
from dashboard.staged import Staged
from dashboard.watch import market_at

# Events that may wait for one page.
MAX_QUEUED = 64
Event = tuple[str, str]


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
        self._pages: set[asyncio.Queue[Event | None]] = set()
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="page poller", daemon=True)

    def start(self) -> None:
        """Start polling. Call it in the event loop that serves the pages."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the first poll. Return False if it takes longer."""
        return self._ready.wait(seconds)

    def close(self) -> None:
        """End every stream and the thread. Safe to call from any thread, and more than once."""
        self._stop.set()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._broadcast, None)
        if self._thread.ident is not None:
            self._thread.join(timeout=5)

    async def events(self) -> AsyncIterator[Event]:
        """Yield every event from now on, as (name, JSON)."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._pages.add(queue)
        try:
            while not self._stop.is_set() and (event := await queue.get()) is not None:
                yield event
        finally:
            self._pages.discard(queue)

    def _broadcast(self, event: Event | None) -> None:
        """Queue an event for every page, or None to end every stream. Runs in the event loop."""
        for queue in [*self._pages]:
            late = queue.qsize() >= MAX_QUEUED
            queue.put_nowait(None if late else event)
            if late:
                self._pages.discard(queue)

    def _publish(self, name: str, body: BaseModel) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._broadcast, (name, body.model_dump_json()))

    def _run(self) -> None:
        started, minute, outage = False, None, ""
        while not self._stop.is_set():
            try:
                if not started:
                    self._staged.start(self._symbols(), self._clock())
                    started = True
                self._poll(recovered=bool(outage))
                outage = ""
            except BarflowError as error:
                if str(error) != outage:
                    self._publish("outage", Outage(detail=str(error)))
                outage = str(error)
            self._ready.set()
            now = self._clock()
            if (this := now.replace(second=0, microsecond=0)) != minute:
                minute = this
                self._publish("clock", market_at(now))
            self._stop.wait(self._seconds)

    def _poll(self, *, recovered: bool) -> None:
        """Publish what changed. After an outage publish every row: a page may have missed some."""
        changed = self._staged.refresh()
        if recovered:
            changed = [*self._symbols()]
        if changed or recovered:
            self._publish("bars", ChangedRows(market=market_at(self._clock()), rows=self._rows(changed)))
        for alert in self._staged.new_alerts():
            self._publish("alert", alert)
