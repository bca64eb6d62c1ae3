"""Helpers of the Twelve Data emulator's tests: one market, one clock, one call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import requests

from emulators.twelvedata.bar_source import Row
from emulators.twelvedata.server import TwelveDataEmulator
from emulators.twelvedata.switches import Switches
from local.synthetic import SyntheticBars

DAY_OPENS = datetime(2025, 7, 2, 13, 30, tzinfo=UTC)  # Wednesday; 3 July is a half day, 4 July a holiday
DAY_CLOSES = datetime(2025, 7, 2, 20, 0, tzinfo=UTC)
MARKET = SyntheticBars(seed=7)


class Clock:
    """The emulator's clock, which a test can move."""

    def __init__(self) -> None:
        self.now = DAY_CLOSES

    def __call__(self) -> datetime:
        return self.now


CLOCK = Clock()


def reset(server: TwelveDataEmulator) -> TwelveDataEmulator:
    """Reset a running server: default switches, no limits, no credits used, no recorded requests."""
    CLOCK.now = DAY_CLOSES
    vars(server.switches).update({name: value for name, value in vars(Switches()).items() if name != "_lock"})
    limit(server)
    server.requests.clear()
    return server


def limit(server: TwelveDataEmulator, per_minute: int | None = None, per_day: int | None = None) -> None:
    """Give the server these limits, with all credits left."""
    credits = server._answers.credits
    credits.per_minute, credits.per_day, credits._minute = per_minute, per_day, None


def ask(
    api: TwelveDataEmulator,
    symbol: str = "AAPL",
    key: str | None = "emulator-key",
    timeout: float = 10,
    **params: object,
) -> Any:
    """Request a time series, by default in UTC and with the key in the header."""
    query = {"symbol": symbol, "interval": "5min", "timezone": "UTC", **params}
    headers = {"Authorization": f"apikey {key}"} if key else {}
    return requests.get(f"{api.url}/time_series", params=query, headers=headers, timeout=timeout)


def stamps(response: Any) -> list[str]:
    return [value["datetime"] for value in response.json()["values"]]


def text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def as_values(rows: list[Row]) -> list[dict[str, str | None]]:
    names = ("open", "high", "low", "close", "volume")
    return [{"datetime": text(row[0]), **dict(zip(names, row[1:], strict=True))} for row in rows]
