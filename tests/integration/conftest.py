"""Fixtures that start Twelve Data API emulators. MongoDB and PostgreSQL come from tests/conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from clients import Emulators
from twelvedata_calls import CLOCK, MARKET, reset

from emulators.twelvedata.bar_source import BarSource
from emulators.twelvedata.server import TwelveDataEmulator


@pytest.fixture
def emulator() -> Iterator[Emulators]:
    """Return a function that starts an API emulator: ``emulator(source, clock=…)``. The default source is synthetic."""
    with ExitStack() as running:

        def start(source: BarSource = MARKET, **options: object) -> TwelveDataEmulator:
            return running.enter_context(TwelveDataEmulator(source, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="session")
def market_server() -> Iterator[TwelveDataEmulator]:
    with TwelveDataEmulator(MARKET, clock=CLOCK) as running:
        yield running


@pytest.fixture
def market(market_server: TwelveDataEmulator) -> TwelveDataEmulator:
    """Return a reset emulator with synthetic sessions. Its clock is ``twelvedata_calls.CLOCK``."""
    return reset(market_server)
