"""Placeholder client until the real one lands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import requests
from pydantic import SecretStr

from barflow.sessions import utc_now


@dataclass(frozen=True)
class Answer:
    symbol: str
    meta: Mapping[str, Any]
    values: list[dict[str, Any]]
    requested_at: datetime


@dataclass(frozen=True)
class SymbolError:
    symbol: str
    code: int
    message: str


@dataclass(frozen=True)
class RawResponse:
    body: bytes
    symbols: tuple[str, ...]
    requested_at: datetime
    http_status: int


class TwelveDataClient:
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
    ):
        self.url, self.key, self.batch = url, api_key, batch_size
        self.http = requests.Session()

    def time_series(
        self,
        symbols: Sequence[str],
        start: datetime,
        end: datetime,
        *,
        on_raw: Callable[[RawResponse], None] | None = None,
    ) -> Iterator[Answer | SymbolError]:
        for i in range(0, len(symbols), self.batch):
            part = symbols[i : i + self.batch]
            asked = utc_now()
            r = self.http.get(
                self.url + "/time_series",
                params={
                    "symbol": ",".join(part),
                    "interval": "5min",
                    "timezone": "UTC",
                    "outputsize": 5000,
                    "start_date": f"{start:%Y-%m-%d %H:%M:%S}",
                    "end_date": f"{end:%Y-%m-%d %H:%M:%S}",
                },
                headers={"Authorization": "apikey " + (self.key.get_secret_value() if self.key else "demo")},
            )
            if on_raw:
                on_raw(RawResponse(r.content, tuple(part), asked, r.status_code))
            body = orjson.loads(r.content)
            if len(part) == 1:
                body = {part[0]: body}
            for symbol in part:
                b = body[symbol]
                if b.get("status") == "error":
                    yield SymbolError(symbol, b["code"], b["message"])
                else:
                    yield Answer(symbol, b["meta"], b["values"], asked)
