"""How does a page hear of a new bar or alert? One thread a process asks MongoDB, and tells every open page.

A page that does not keep up is let go of: it connects again and reads everything anew.
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

# Events that a page may be behind.
MOST_WAITING = 64
Event = tuple[str, str]


class Ticked(BaseModel):
    """The rows of the watch-list that changed."""

    market: Market
    rows: list[WatchRow]


class Trouble(BaseModel):
    """Why nothing new can be told at the moment."""

    detail: str


class Live:
    """Watches ``staged`` from ``start`` to ``close``. ``rows`` describes symbols for the watch-list."""

    def __init__(
        self,
        staged: Staged,
        symbols: Callable[[], Iterable[str]],
        rows: Callable[[Sequence[str]], list[WatchRow]],
        clock: Callable[[], datetime],
        seconds: float,
    ) -> None:
        """Asks every ``seconds``; ``symbols`` are those to begin with, ``clock`` is the market's."""
        self._staged, self._symbols, self._rows = staged, symbols, rows
        self._clock, self._seconds = clock, seconds
        self._pages: set[asyncio.Queue[Event | None]] = set()
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._watch, name="page watcher", daemon=True)

    def start(self) -> None:
        """Begins, in the event loop that serves the pages."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Waits for the first look at the store; False when that takes longer."""
        return self._ready.wait(seconds)

    def close(self) -> None:
        """Ends every page's stream and the thread; from any thread, and more than once."""
        self._stop.set()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, None)
        if self._thread.ident is not None:
            self._thread.join(timeout=5)

    async def events(self) -> AsyncIterator[Event]:
        """What happens from now on: (name, JSON)."""
        waiting: asyncio.Queue[Event | None] = asyncio.Queue()
        self._pages.add(waiting)
        try:
            while not self._stop.is_set() and (event := await waiting.get()) is not None:
                yield event
        finally:
            self._pages.discard(waiting)

    def _tell(self, event: Event | None) -> None:
        """In the event loop: hands an event to every page."""
        for waiting in [*self._pages]:
            late = waiting.qsize() >= MOST_WAITING
            waiting.put_nowait(None if late else event)
            if late:
                self._pages.discard(waiting)

    def _say(self, name: str, body: BaseModel) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, (name, body.model_dump_json()))

    def _watch(self) -> None:
        started, minute, trouble = False, None, ""
        while not self._stop.is_set():
            try:
                if not started:
                    self._staged.start(self._symbols(), self._clock())
                    started = True
                self._look()
                trouble = ""
            except BarflowError as error:
                if str(error) != trouble:
                    self._say("trouble", Trouble(detail=str(error)))
                trouble = str(error)
            self._ready.set()
            now = self._clock()
            if (this := now.replace(second=0, microsecond=0)) != minute:
                minute = this
                self._say("clock", market_at(now))
            self._stop.wait(self._seconds)

    def _look(self) -> None:
        if changed := self._staged.refresh():
            self._say("bars", Ticked(market=market_at(self._clock()), rows=self._rows(changed)))
        for alert in self._staged.new_alerts():
            self._say("alert", alert)
