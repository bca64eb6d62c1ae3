"""A second server of Twelve Data's ``/time_series``, for recorded answers.

It is written from the documentation of the API and shares no code with the emulator, so that test_second_vendor.py can
compare the two. Where they differ, look up which of them is right.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

MOST_SYMBOLS, MOST_ROWS, DEFAULT_ROWS = 120, 5000, 30
Body = dict[str, Any]


class VendorError(Exception):
    """An error of the whole call or of one symbol. Its body is the API's error object."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.body: Body = {"code": code, "message": message, "status": "error"}


@dataclass
class SecondVendor:
    """The API for one key: recorded answers in the exchange's time by symbol, error bodies by name, a clock (UTC).

    ``credits_per_minute`` is None where the plan has no limit. ``errors_in_200`` sends every error with HTTP status
    200. ``beyond_plan`` are symbols that the plan does not include. ``meta`` replaces fields of every answer's meta.
    ``shuffled`` sends the bars of an answer in any order.
    """

    answers: Mapping[str, Body]
    errors: Mapping[str, Body]
    clock: Callable[[], datetime]
    key: str
    credits_per_minute: int | None = None
    refused_calls_count: bool = True
    errors_in_200: bool = False
    endpoint_in_plan: bool = True
    beyond_plan: Container[str] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    shuffled: bool = False
    _minute: datetime | None = None
    _used: int = 0

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Yield the address of the running server, on loopback and a free port."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"vendor": self}))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def respond(self, path: str, query: Mapping[str, str], key: str) -> tuple[int, Body, dict[str, str]]:
        """Return the HTTP status, body and extra headers of a call."""
        try:
            status, body = 200, self._answer(path, query, key)
        except VendorError as error:
            status, body = 200 if self.errors_in_200 else error.code, error.body
        limit = self.credits_per_minute
        if limit is None:
            return status, body, {}
        used = self._used_now()
        return status, body, {"api-credits-used": str(used), "api-credits-left": str(max(0, limit - used))}

    def _answer(self, path: str, query: Mapping[str, str], key: str) -> Body:
        if path != "/time_series":
            raise VendorError(404, "no such endpoint")
        symbols = query.get("symbol", "").split(",")
        if key != self.key and (key != "demo" or symbols != ["AAPL"]):
            raise self._error("bad_key")
        if not self.endpoint_in_plan:
            raise VendorError(403, "/time_series is not available with this plan")
        if len(symbols) > MOST_SYMBOLS:
            raise VendorError(414, "too many symbols")
        window = _Window.read(query)
        self._spend(len(symbols))
        if len(symbols) == 1:
            return self._series(symbols[0], window)
        return {symbol: self._part(symbol, window) for symbol in symbols}

    def _part(self, symbol: str, window: _Window) -> Body:
        """Return a symbol's part of the answer to several: its series, or its error."""
        try:
            return self._series(symbol, window)
        except VendorError as error:
            return error.body

    def _series(self, symbol: str, window: _Window) -> Body:
        if symbol in self.beyond_plan:
            raise self._error("symbol_needs_plan")
        recorded = self.answers.get(symbol.partition(":")[0])  # SBIN:NSE names the exchange
        if recorded is None:
            raise self._error("unknown_symbol")
        values = window.values(recorded, self.clock())
        if not values:
            raise self._error("no_data")
        if self.shuffled:
            random.Random(symbol).shuffle(values)
        return {"meta": {**recorded["meta"], **self.meta}, "values": values, "status": "ok"}

    def _error(self, name: str) -> VendorError:
        return VendorError(self.errors[name]["code"], self.errors[name]["message"])

    def _used_now(self) -> int:
        """Return the credits used in this clock minute."""
        minute = self.clock().replace(second=0, microsecond=0)
        if minute != self._minute:
            self._minute, self._used = minute, 0
        return self._used

    def _spend(self, credits: int) -> None:
        """Spend credits. A call that costs more than are left is refused whole."""
        used, limit = self._used_now() + credits, self.credits_per_minute
        refused = limit is not None and used > limit
        if not refused or self.refused_calls_count:
            self._used = used
        if refused:
            raise VendorError(
                429,
                f"You have run out of API credits for the current minute. {used} API credits were used, with the "
                f"current limit being {limit}. Wait for the next minute.",
            )


@dataclass(frozen=True)
class _Window:
    """The bars that a call asks for. ``zone`` is None for the exchange's own time zone."""

    start: str | None
    end: str | None
    rows: int
    zone: ZoneInfo | None
    ascending: bool

    @classmethod
    def read(cls, query: Mapping[str, str]) -> _Window:
        """Read a query. Raise VendorError 400 for a bad parameter."""
        start, end, zone = query.get("start_date"), query.get("end_date"), query.get("timezone", "Exchange")
        order = query.get("order", "desc")
        try:
            rows = int(query.get("outputsize", MOST_ROWS if start or end else DEFAULT_ROWS))
            for text in filter(None, (start, end)):
                datetime.fromisoformat(text)
            if query.get("interval") != "5min" or order not in ("asc", "desc") or not 1 <= rows <= MOST_ROWS:
                raise ValueError("interval, order or outputsize")
            where = None if zone == "Exchange" else ZoneInfo(zone)
        except (ValueError, KeyError) as error:
            raise VendorError(400, f"invalid parameter: {error}") from None
        return cls(start, end, rows, where, order == "asc")

    def values(self, recorded: Body, now: datetime) -> list[dict[str, str]]:
        """Return the newest bars from start to end, both included, that have opened by ``now``."""
        exchange = ZoneInfo(recorded["meta"]["exchange_timezone"])
        zone = self.zone or exchange
        first = _utc(self.start, zone) if self.start else datetime.min.replace(tzinfo=UTC)
        last = min(now, _utc(self.end, zone)) if self.end else now
        opened = ((_utc(value["datetime"], exchange), value) for value in recorded["values"])
        found = sorted((item for item in opened if first <= item[0] <= last), key=lambda item: item[0], reverse=True)
        newest = [{**value, "datetime": f"{ts.astimezone(zone):%Y-%m-%d %H:%M:%S}"} for ts, value in found[: self.rows]]
        return newest[::-1] if self.ascending else newest


def _utc(text: str, zone: ZoneInfo) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)


class _Handler(BaseHTTPRequestHandler):
    vendor: SecondVendor

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        key = self.headers.get("Authorization", "").removeprefix("apikey ") or query.get("apikey", "")
        status, body, headers = self.vendor.respond(parts.path, query, key)
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Log nothing."""
