"""Which API stand-ins do these tests talk to? The servers come from the tests' own conftest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from clients import StandIns
from twelvedata_calls import CLOCK, MARKET, reset

from local.bar_sources import BarSource
from local.twelvedata.server import TwelveDataStandIn


@pytest.fixture
def stand_in() -> Iterator[StandIns]:
    """Starts an API stand-in: ``stand_in(source, clock=…)``. Synthetic sessions unless told otherwise."""
    with ExitStack() as running:

        def start(source: BarSource = MARKET, **options: object) -> TwelveDataStandIn:
            return running.enter_context(TwelveDataStandIn(source, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="session")
def market_server() -> Iterator[TwelveDataStandIn]:
    with TwelveDataStandIn(MARKET, clock=CLOCK) as running:
        yield running


@pytest.fixture
def market(market_server: TwelveDataStandIn) -> TwelveDataStandIn:
    """A stand-in with synthetic sessions as if it had just started. Its clock is ``twelvedata_calls.CLOCK``."""
    return reset(market_server)
