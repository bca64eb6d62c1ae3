"""How are bars fetched from Twelve Data? In batches, within the plan's credits, page by page, until all is there.

Values stay text, as received: barflow.market.validation judges them. How a call is made is in barflow.twelvedata.calls,
what goes over the wire in barflow.twelvedata.http.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from operator import itemgetter
from typing import Any

import requests
from pydantic import SecretStr

from barflow.market.sessions import slot_named, utc_now
from barflow.twelvedata.calls import Answer, Calls, OnRaw, Page, Result, SymbolError, as_text
from barflow.twelvedata.credits import Credits
from barflow.twelvedata.http import Http, RawResponse

__all__ = ["Answer", "RawResponse", "SymbolError", "TwelveDataClient"]

MOST_SYMBOLS = 120
MOST_ROWS = 5000
# Bars that are held in memory together, about 1 kB each.
ROWS_HELD = 60_000
ROWS_A_DAY = 78


class TwelveDataClient:
    """Time series with one API key. Not for several threads at once."""

    def __init__(
        self,
        url: str,
        api_key: SecretStr | None,
        *,
        credits_per_minute: int,
        credits_per_day: int | None,
        batch_size: int,
        clock: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
        session: requests.Session | None = None,
        on_wait: Callable[[float, str], None] | None = None,
        page_rows: int = MOST_ROWS,
        attempts: int = 5,
        longest_pause: float = 20.0,
        timeout: tuple[float, float] = (5.0, 30.0),
    ) -> None:
        """Without ``api_key`` the vendor's public key ``demo`` is used. ``on_wait`` hears of each wait, in seconds.

        A call that fails is made up to ``attempts`` times, with pauses that double from 1 to ``longest_pause``
        seconds; ``timeout`` is how many seconds it may take to connect, and be silent. Raises BadInputError for a
        key or an address that cannot be one.
        """
        self._page_rows = page_rows
        self._calls = Calls(
            Http(url, api_key, timeout=timeout, clock=clock, session=session),
            Credits(credits_per_minute, credits_per_day),
            batch_size=batch_size,
            clock=clock,
            sleep=sleep,
            on_wait=on_wait or (lambda seconds, why: None),
            attempts=attempts,
            longest_pause=longest_pause,
        )

    def time_series(
        self, symbols: Sequence[str], start: datetime, end: datetime, *, on_raw: OnRaw = None
    ) -> Iterator[Result]:
        """The bars that open from ``start`` to ``end`` (UTC, both included): for each symbol an answer or its error.

        ``on_raw`` hears of every HTTP answer before it is used. Raises VendorRefusedError (key, plan, credits),
        UnavailableError (no usable answer after all attempts) and BadInputError (a request the API calls wrong).
        """
        names = list(dict.fromkeys(symbols))
        while names:
            size = symbols_at_once(start, end, self._calls.batch_size)
            batch, names = names[:size], names[size:]
            yield from self._all_pages(batch, start, end, on_raw)

    def _all_pages(self, batch: list[str], start: datetime, end: datetime, on_raw: OnRaw) -> Iterator[Result]:
        """Pages backwards, for of more than a page the API gives the newest. Only whose page was full go on.

        A symbol's pages are joined before it is given away: were the newer one stored alone, nobody would ever ask
        for the older ones again.
        """
        newer: dict[str, Answer] = {}
        pages = [(end, batch)]
        while pages:
            until, symbols = pages.pop()
            older: dict[datetime, list[str]] = defaultdict(list)
            for result in self._calls.answers(symbols, Page(start, until, self._page_rows), on_raw):
                held = newer.pop(result.symbol, None)
                if isinstance(result, SymbolError):
                    yield result
                    continue
                answer = _joined(held, result, until) if held else result
                oldest = _oldest_bar(result.values) if len(result.values) >= self._page_rows else None
                if oldest is None or oldest <= start:
                    yield answer
                elif held and oldest >= until:
                    yield SymbolError(result.symbol, 500, f"the API gives nothing older than {as_text(until)} UTC")
                else:
                    newer[result.symbol] = answer
                    older[oldest].append(result.symbol)
            pages += older.items()


def symbols_at_once(start: datetime, end: datetime, batch_size: int) -> int:
    """How many symbols one call asks for: their bars are in memory together, and a call more costs no credit."""
    days = max(1, (end - start).days + 1)
    return max(1, min(batch_size, MOST_SYMBOLS, ROWS_HELD // (ROWS_A_DAY * days)))


def _joined(newer: Answer, page: Answer, boundary: datetime) -> Answer:
    """An answer with its next older page, without the bar that both hold."""
    both = as_text(boundary)
    older = [value for value in page.values if not (isinstance(value, dict) and value.get("datetime") == both)]
    return Answer(newer.symbol, newer.meta, newer.values + older, newer.requested_at)


def _oldest_bar(values: list[Any]) -> datetime | None:
    """The open (UTC) of the oldest bar, in whatever order. What is no bar of a session does not lead astray."""
    with suppress(KeyError, TypeError):
        if oldest := slot_named(min(map(itemgetter("datetime"), values))):
            return oldest
    texts = (value.get("datetime") for value in values if isinstance(value, dict))
    ordered = sorted({text for text in texts if isinstance(text, str)})
    return next((slot for text in ordered if (slot := slot_named(text))), None)
