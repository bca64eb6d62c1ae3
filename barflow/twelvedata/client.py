"""The client of Twelve Data: it fetches bars in batches and pages, within the plan's credits.

Values stay text, as received. barflow.market.validation checks them. The module barflow.twelvedata.calls makes a call
with its waits and retries, barflow.twelvedata.http sends it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime
from operator import itemgetter
from typing import Any

import requests
from pydantic import SecretStr

from barflow.errors import BadInputError
from barflow.market.actions import Kind
from barflow.market.sessions import parse_slot, utc_now
from barflow.twelvedata.action_requests import DAILY_ROWS, Daily, DailyAdjust, Listing
from barflow.twelvedata.calls import UNUSABLE, Answer, Calls, FirstBar, OnRaw, Page, Result, SymbolError, as_text
from barflow.twelvedata.credits import Credits
from barflow.twelvedata.http import Http, RawResponse

__all__ = ["Answer", "RawResponse", "SymbolError", "TwelveDataClient"]

MOST_SYMBOLS = 120
MOST_ROWS = 5000
# How many bars are in memory at the same time, about 1 kB each.
MAX_ROWS_IN_MEMORY = 60_000
ROWS_PER_DAY = 78


class TwelveDataClient:
    """Time series with one API key. Not safe for several threads."""

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
        deadline: float = 40.0,
    ) -> None:
        """Open a client. Without ``api_key`` it uses Twelve Data's public key ``demo``.

        ``on_wait`` is called before each wait with its seconds and its reason. A call is made up to ``attempts`` times,
        with pauses that double from 1 to ``longest_pause`` seconds. ``timeout`` is the seconds to connect, and to wait
        for the next bytes, ``deadline`` those for a whole request. Raises BadInputError for a malformed key or address.
        """
        self._page_rows = page_rows
        self._calls = Calls(
            Http(url, api_key, timeout=timeout, deadline=deadline, clock=clock, session=session),
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
        """Yield each symbol's bars that open from ``start`` to ``end`` (UTC, both included), or its error.

        ``on_raw`` is called with every HTTP answer before it is used. Raises VendorRefusedError (key, plan, credits),
        UnavailableError (no usable answer after all attempts) and BadInputError (a request that the API rejects).
        """
        names = list(dict.fromkeys(symbols))
        while names:
            size = symbols_at_once(start, end, self._calls.batch_size)
            batch, names = names[:size], names[size:]
            yield from self._all_pages(batch, start, end, on_raw)

    def first_bar(self, symbol: str, *, on_raw: OnRaw = None) -> date | SymbolError | None:
        """Return the day of the first bar that Twelve Data has of a symbol (1 credit), or None if it does not say.

        Raises VendorRefusedError (key, credits) and UnavailableError (no usable answer after all attempts).
        """
        try:
            result = next(self._calls.answers([symbol], FirstBar(), on_raw))
        except BadInputError:  # not an address of the API, or none with this endpoint: the bars' request tells
            return None
        if isinstance(result, SymbolError):
            return result
        days: Sequence[Any] = result.values
        return next(iter(days), None)

    def listing(self, symbol: str, kind: Kind, *, on_raw: OnRaw = None) -> Result:
        """Return all splits or all dividends of a symbol as received (20 credits), or its error.

        Raises NotInPlanError if the plan lacks the endpoint, and what ``time_series`` raises.
        """
        return next(self._calls.answers([symbol], Listing(kind), on_raw))

    def daily(
        self, symbols: Sequence[str], adjust: DailyAdjust, *, rows: int = DAILY_ROWS, on_raw: OnRaw = None
    ) -> Iterator[Result]:
        """Yield the newest daily bars of each symbol, at most ``rows``, or its error (1 credit each).

        Prices are raw or adjusted for splits. Raises what ``time_series`` raises.
        """
        return self._calls.answers(list(symbols), Daily(adjust, rows), on_raw)

    def ready_at(self, cost: int) -> datetime:
        """Return when a request may start (UTC): now if ``cost`` credits are left, else when credits are renewed."""
        return self._calls.ready_at(cost)

    @property
    def symbols_of_daily(self) -> int:
        """Return for how many symbols both daily series are in memory at the same time."""
        return max(1, min(self._calls.batch_size, MAX_ROWS_IN_MEMORY // (2 * DAILY_ROWS)))

    def _all_pages(self, batch: list[str], start: datetime, end: datetime, on_raw: OnRaw) -> Iterator[Result]:
        """Fetch page by page, newest first, since the API returns the newest rows of a range. Join each symbol's pages.

        Only symbols with a full page go on. A symbol is yielded once it is complete: if its newer page were stored
        alone, no later tick would ask for the older ones.
        """
        newer: dict[str, Answer] = {}
        pages = [(end, batch)]
        while pages:
            page_end, symbols = pages.pop()
            older: dict[datetime, list[str]] = defaultdict(list)
            for result in self._calls.answers(symbols, Page(start, page_end, self._page_rows), on_raw):
                newer_pages = newer.pop(result.symbol, None)
                if isinstance(result, SymbolError):
                    yield result
                    continue
                if newer_pages and result.values and result.meta != newer_pages.meta:
                    yield SymbolError(result.symbol, UNUSABLE, "the pages of its answer contradict each other")
                    continue
                answer = _joined(newer_pages, result, page_end) if newer_pages else result
                oldest = _oldest_bar(result.values) if len(result.values) >= self._page_rows else None
                if oldest is None or oldest <= start:
                    yield answer
                elif newer_pages and oldest >= page_end:
                    yield SymbolError(result.symbol, 500, f"the API returns nothing older than {as_text(page_end)} UTC")
                else:
                    newer[result.symbol] = answer
                    older[oldest].append(result.symbol)
            pages += older.items()


def symbols_at_once(start: datetime, end: datetime, batch_size: int) -> int:
    """Return how many symbols one call asks for.

    All their bars are in memory at the same time. More calls cost no more credits.
    """
    days = max(1, (end - start).days + 1)
    return max(1, min(batch_size, MOST_SYMBOLS, MAX_ROWS_IN_MEMORY // (ROWS_PER_DAY * days)))


def _joined(newer: Answer, page: Answer, boundary: datetime) -> Answer:
    """Return an answer with its next older page, without the bar at the boundary that both hold."""
    shared = as_text(boundary)
    older = [value for value in page.values if not (isinstance(value, dict) and value.get("datetime") == shared)]
    return Answer(newer.symbol, newer.meta, newer.values + older, newer.requested_at)


def _oldest_bar(values: list[Any]) -> datetime | None:
    """Return the open (UTC) of the oldest bar, in any order of rows. Rows that are not a session's bar are ignored."""
    with suppress(KeyError, TypeError):
        if oldest := parse_slot(min(map(itemgetter("datetime"), values))):
            return oldest
    texts = (value.get("datetime") for value in values if isinstance(value, dict))
    ordered = sorted({text for text in texts if isinstance(text, str)})
    return next((slot for text in ordered if (slot := parse_slot(text))), None)
