"""How do the tests of the client make one? On the emulator's clock, and with a sleep that moves that clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import SecretStr
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS

from barflow.twelvedata.client import Answer, RawResponse, SymbolError, TwelveDataClient
from emulators.twelvedata.bar_source import BarSource
from emulators.twelvedata.server import TwelveDataEmulator

KEY = "emulator-key"
Emulators = Callable[..., TwelveDataEmulator]


@dataclass
class Waits:
    """What a client was told to sleep, and what it told about it. Time passes only here."""

    seconds: list[float] = field(default_factory=list)
    told: list[tuple[float, str]] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        CLOCK.now += timedelta(seconds=seconds)

    def tell(self, seconds: float, why: str) -> None:
        self.told.append((seconds, why))


def client(api: TwelveDataEmulator | str, waits: Waits | None = None, *, key: str | None = KEY, **options: Any) -> Any:
    """A client of the emulator, or of an address, without limits; ``options`` are TwelveDataClient's."""
    waits = waits or Waits()
    settings: dict[str, Any] = {"credits_per_minute": 10_000, "credits_per_day": None, "batch_size": 8}
    settings |= {"clock": CLOCK, "sleep": waits.sleep, "on_wait": waits.tell} | options
    url = api if isinstance(api, str) else api.url
    return TwelveDataClient(url, SecretStr(key) if key else None, **settings)


Results = dict[str, Answer | SymbolError]


def fetch(
    api: TwelveDataEmulator | str,
    symbols: str = "AAPL",
    start: datetime = DAY_OPENS,
    end: datetime = DAY_CLOSES,
    waits: Waits | None = None,
    raw: list[RawResponse] | None = None,
    **options: Any,
) -> Results:
    """One call of a new client: its results by symbol, each exactly one."""
    series = client(api, waits, **options).time_series(
        symbols.split(","), start, end, on_raw=None if raw is None else raw.append
    )
    return by_symbol(series)


def by_symbol(series: Iterator[Answer | SymbolError]) -> Results:
    results = list(series)
    found = {result.symbol: result for result in results}
    assert len(found) == len(results), "a symbol has two results"
    return found


def rows(result: Answer | SymbolError) -> list[tuple[str, ...]]:
    """The bars of an answer, oldest first: datetime, open, high, low, close, volume, as text."""
    assert isinstance(result, Answer), result
    return sorted(tuple(value.values()) for value in result.values)


def printed(source: BarSource, symbol: str, start: datetime, end: datetime) -> list[tuple[str, ...]]:
    """What the source printed from ``start`` to ``end``, both included: the oracle."""
    found = source.rows(symbol, start, end + timedelta(seconds=1))
    return [(f"{row[0]:%Y-%m-%d %H:%M:%S}", *(str(text) for text in row[1:])) for row in found]


def asked(api: TwelveDataEmulator) -> list[tuple[str, ...]]:
    """The symbols of each call that reached the emulator, in order."""
    return [call.symbols for call in api.requests]
