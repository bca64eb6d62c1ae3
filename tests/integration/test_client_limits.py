"""Answers of limited size and time: a gzip bomb, a slow drip and a giant row end no process and hold up no tick."""

from __future__ import annotations

import threading
import time
import tracemalloc
from typing import Any

import pytest
import requests
from clients import Emulators, fetch
from twelvedata_calls import CLOCK, DAY_CLOSES

from barflow.errors import UnavailableError
from barflow.twelvedata.client import Answer, RawResponse, SymbolError
from barflow.twelvedata.http import MAX_BODY_BYTES, SAMPLE_BYTES
from emulators.twelvedata.server import TwelveDataEmulator


@pytest.fixture
def api(emulator: Emulators) -> TwelveDataEmulator:
    CLOCK.now = DAY_CLOSES
    return emulator(clock=CLOCK)


def test_a_gzip_bomb_costs_its_symbol_alone_and_little_memory(api: TwelveDataEmulator) -> None:
    raw: list[RawResponse] = []
    api.switches.fail("gzip_bomb", symbol="AAPL", size=200_000_000, times=None)
    tracemalloc.start()
    found = fetch(api, "AAPL,MSFT", raw=raw)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    bomb = found["AAPL"]
    assert isinstance(bomb, SymbolError)
    assert (bomb.code, bomb.message) == (502, f"the answer has more than {MAX_BODY_BYTES:,} bytes")
    assert isinstance(found["MSFT"], Answer)
    cut = [item for item in raw if item.note]
    assert [len(item.body) for item in cut] == [SAMPLE_BYTES] * 2  # the batch, then AAPL alone
    assert most < 3 * MAX_BODY_BYTES


def test_an_absurd_number_of_credits_left_is_ignored(api: TwelveDataEmulator) -> None:
    class Absurd(requests.Session):
        def send(self, *args: Any, **options: Any) -> requests.Response:
            response = super().send(*args, **options)
            response.headers["api-credits-left"] = "9" * 5000  # more digits than Python reads
            return response

    assert isinstance(fetch(api, "AAPL", session=Absurd())["AAPL"], Answer)


@pytest.mark.parametrize("kind", ["slow_drip", "slow_headers"])
def test_a_slow_drip_ends_at_the_deadline(api: TwelveDataEmulator, kind: str) -> None:
    api.switches.fail(kind, seconds=0.1, times=2)
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="no complete answer within 1 s"):
        fetch(api, timeout=(1.0, 2.0), deadline=1.0, attempts=2)
    assert time.monotonic() - begun < 4
    assert isinstance(fetch(api, timeout=(1.0, 2.0), deadline=10.0)["AAPL"], Answer)
    if kind == "slow_drip":  # its connection is closed, so its thread ends
        for thread in threading.enumerate():
            if thread.name == "twelvedata request":
                thread.join(5)
                assert not thread.is_alive()


def test_a_row_of_17_mb_is_received_as_it_is(api: TwelveDataEmulator) -> None:
    api.switches.fail("giant_row", size=17_000_000)
    found = fetch(api)["AAPL"]
    assert isinstance(found, Answer)
    assert max(len(value["close"]) for value in found.values) == 17_000_000
