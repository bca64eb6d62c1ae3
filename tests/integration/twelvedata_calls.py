"""How do the tests of the API emulator talk to it? One market, one clock, one call."""

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
    """The emulator's clock, which a test moves."""

    def __init__(self) -> None:
        self.now = DAY_CLOSES

    def __call__(self) -> datetime:
        return self.now


CLOCK = Clock()


def reset(server: TwelveDataEmulator) -> TwelveDataEmulator:
    """A running server as if it had just started: default switches, no limits, no credits used, an empty log."""
    CLOCK.now = DAY_CLOSES
    vars(server.switches).update({name: value for name, value in vars(Switches()).items() if name != "_lock"})
    limit(server)
    server.requests.clear()
    return server


def limit(server: TwelveDataEmulator, per_minute: int | None = None, per_day: int | None = None) -> None:
    """Another plan, with all its credits."""
    credits = server._answers.credits
    credits.per_minute, credits.per_day, credits._minute = per_minute, per_day, None


def ask(
    api: TwelveDataEmulator,
    symbol: str = "AAPL",
    key: str | None = "emulator-key",
    timeout: float = 10,
    **params: object,
) -> Any:
    """One request for a time series, in UTC and with the key in the header unless told otherwise."""
    asked = {"symbol": symbol, "interval": "5min", "timezone": "UTC", **params}
    headers = {"Authorization": f"apikey {key}"} if key else {}
    return requests.get(f"{api.url}/time_series", params=asked, headers=headers, timeout=timeout)


def stamps(response: Any) -> list[str]:
    return [value["datetime"] for value in response.json()["values"]]


def text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def as_values(rows: list[Row]) -> list[dict[str, str | None]]:
    names = ("open", "high", "low", "close", "volume")
    return [{"datetime": text(row[0]), **dict(zip(names, row[1:], strict=True))} for row in rows]
