"""Types and clients for tests. The clients are on the emulator's clock: a sleep moves that clock instead of waiting."""

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
# Runs a command with these arguments. Returns its exit code, its stdout and its stderr.
Command = Callable[..., tuple[int, str, str]]


@dataclass
class Waits:
    """Records the sleeps of a client and the reasons that it reported. Time passes only here."""

    seconds: list[float] = field(default_factory=list)
    reported: list[tuple[float, str]] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        CLOCK.now += timedelta(seconds=seconds)

    def on_wait(self, seconds: float, reason: str) -> None:
        self.reported.append((seconds, reason))


def client(api: TwelveDataEmulator | str, waits: Waits | None = None, *, key: str | None = KEY, **options: Any) -> Any:
    """Return a client of the emulator or of an address, without limits. ``options`` go to TwelveDataClient."""
    waits = waits or Waits()
    settings: dict[str, Any] = {"credits_per_minute": 10_000, "credits_per_day": None, "batch_size": 8}
    settings |= {"clock": CLOCK, "sleep": waits.sleep, "on_wait": waits.on_wait} | options
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
    """Return the results of one call of a new client by symbol, exactly one for each."""
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
    """Return the bars of an answer, oldest first: datetime, open, high, low, close, volume, as text."""
    assert isinstance(result, Answer), result
    return sorted(tuple(value.values()) for value in result.values)


def expected(source: BarSource, symbol: str, start: datetime, end: datetime) -> list[tuple[str, ...]]:
    """Return the bars of the source from ``start`` to ``end``, both included: the expected bars."""
    found = source.rows(symbol, start, end + timedelta(seconds=1))
    return [(f"{row[0]:%Y-%m-%d %H:%M:%S}", *(str(text) for text in row[1:])) for row in found]


def calls(api: TwelveDataEmulator) -> list[tuple[str, ...]]:
    """Return the symbols of each call that reached the emulator, in order."""
    return [call.symbols for call in api.requests]
