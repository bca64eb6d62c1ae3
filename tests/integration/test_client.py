"""The client returns every bar exactly once, for every variant of the API and every size of its pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from clients import Emulators, Waits, by_symbol, calls, client, expected, fetch, rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS, MARKET

from barflow.market.sessions import BAR, last_sessions
from barflow.twelvedata.client import Answer, RawResponse, SymbolError
from emulators.twelvedata.bar_source import Row
from emulators.twelvedata.server import TwelveDataEmulator
from local.synthetic import SyntheticBars

LAST_BAR = DAY_CLOSES - BAR
SLOTS = [slot for traded in last_sessions(DAY_CLOSES, 8) for slot in traded.slots]
LONG_AGO = last_sessions(DAY_CLOSES, 130)[0].opens  # 10 000 bars and a few


class TestOneAnswer:
    def test_holds_the_bars_from_start_to_end_as_received(self, market: TwelveDataEmulator) -> None:
        [answer] = fetch(market, end=LAST_BAR).values()
        assert isinstance(answer, Answer)
        assert answer.meta["symbol"] == answer.symbol == "AAPL"
        assert rows(answer) == expected(MARKET, "AAPL", DAY_OPENS, LAST_BAR)
        assert len(answer.values) == 78
        assert answer.requested_at == CLOCK.now

    @pytest.mark.parametrize("inclusive", [True, False])
    def test_ends_with_the_bar_that_opens_at_the_end(self, market: TwelveDataEmulator, inclusive: bool) -> None:
        market.switches.end_date_inclusive = inclusive
        [answer] = fetch(market, end=DAY_OPENS + 3 * BAR).values()
        assert [row[0][11:] for row in rows(answer)] == ["13:30:00", "13:35:00", "13:40:00", "13:45:00"]

    def test_is_requested_in_utc_with_the_key_in_the_header(self, market: TwelveDataEmulator) -> None:
        fetch(market)
        [call] = market.requests
        assert call.key_in == "header"
        assert call.params == {
            "symbol": "AAPL",
            "interval": "5min",
            "timezone": "UTC",
            "outputsize": "5000",
            "start_date": "2025-07-02 13:30:00",
            "end_date": "2025-07-02 20:00:01",
        }

    def test_is_empty_when_nothing_traded(self, market: TwelveDataEmulator) -> None:
        saturday = datetime(2025, 6, 28, 13, 30, tzinfo=UTC)
        [answer] = fetch(market, start=saturday, end=saturday + timedelta(hours=6)).values()
        assert answer == Answer("AAPL", {}, [], CLOCK.now)

    def test_is_given_to_on_raw_as_received_before_it_is_used(self, market: TwelveDataEmulator) -> None:
        raw: list[RawResponse] = []
        series = client(market).time_series(["AAPL", "MSFT"], DAY_OPENS, LAST_BAR, on_raw=raw.append)
        next(series)
        [body] = raw
        assert (body.symbols, body.requested_at, body.http_status) == (("AAPL", "MSFT"), CLOCK.now, 200)
        assert body.body.startswith(b'{"AAPL":{"meta":{"symbol":"AAPL"')

    def test_comes_with_the_public_key_when_no_key_is_set(self, emulator: Emulators) -> None:
        api = emulator(clock=CLOCK)
        assert isinstance(fetch(api, key=None)["AAPL"], Answer)


class TestBatches:
    def test_have_the_given_size(self, market: TwelveDataEmulator) -> None:
        results = fetch(market, "A,B,C,D,E,F,G", batch_size=3)
        assert calls(market) == [("A", "B", "C"), ("D", "E", "F"), ("G",)]
        assert {symbol: rows(result) for symbol, result in results.items()} == {
            symbol: expected(MARKET, symbol, DAY_OPENS, DAY_CLOSES) for symbol in "ABCDEFG"
        }

    def test_never_exceed_the_limit_of_the_api(self, market: TwelveDataEmulator) -> None:
        fetch(market, ",".join(f"S{n}" for n in range(130)), start=LAST_BAR, batch_size=500)
        assert [*map(len, calls(market))] == [120, 10]

    def test_of_long_ranges_are_smaller_to_limit_memory(self, market: TwelveDataEmulator) -> None:
        fetch(market, ",".join(f"S{n}" for n in range(30)), start=DAY_CLOSES - timedelta(days=50), batch_size=120)
        assert [*map(len, calls(market))] == [15, 15]

    def test_request_each_symbol_once(self, market: TwelveDataEmulator) -> None:
        assert list(fetch(market, "AAPL,MSFT,AAPL")) == ["AAPL", "MSFT"]
        assert calls(market) == [("AAPL", "MSFT")]

    def test_are_requested_only_as_results_are_consumed(self, market: TwelveDataEmulator) -> None:
        series = client(market, batch_size=1).time_series(["AAPL", "MSFT"], DAY_OPENS, DAY_CLOSES)
        next(series)
        assert calls(market) == [("AAPL",)]

    def test_of_no_symbols_make_no_call(self, market: TwelveDataEmulator) -> None:
        assert list(client(market).time_series([], DAY_OPENS, DAY_CLOSES)) == []
        assert calls(market) == []


class NewListing(SyntheticBars):
    """A market where the symbol NEW has traded for only two sessions."""

    def rows(self, symbol: str, start: datetime, end: datetime) -> list[Row]:
        listed = last_sessions(DAY_CLOSES, 2)[0].opens if symbol == "NEW" else self.first
        return super().rows(symbol, max(start, listed), end)


class TestPages:
    @pytest.mark.parametrize("inclusive", [True, False])
    def test_of_more_than_5000_bars_are_joined_once_and_in_order(
        self, market: TwelveDataEmulator, inclusive: bool
    ) -> None:
        market.switches.end_date_inclusive = inclusive
        results = fetch(market, "AAPL,MSFT", start=LONG_AGO, end=LAST_BAR)
        for symbol, result in results.items():
            assert rows(result) == expected(MARKET, symbol, LONG_AGO, LAST_BAR)
            assert isinstance(result, Answer)
            assert all(newer["datetime"] > older["datetime"] for newer, older in pairwise(result.values))
        assert calls(market) == [("AAPL", "MSFT")] * 3

    def test_go_on_only_for_symbols_with_a_full_page(self, emulator: Emulators) -> None:
        source = NewListing(seed=7)
        api = emulator(source, clock=CLOCK)
        CLOCK.now = DAY_CLOSES
        start = last_sessions(DAY_CLOSES, 5)[0].opens
        results = fetch(api, "AAPL,NEW,MSFT", start=start, end=LAST_BAR, page_rows=200)
        assert calls(api) == [("AAPL", "NEW", "MSFT"), ("AAPL", "MSFT")]
        for symbol, result in results.items():
            assert rows(result) == expected(source, symbol, start, LAST_BAR)

    def test_end_with_a_page_that_reaches_the_start(self, market: TwelveDataEmulator) -> None:
        assert len(rows(fetch(market, end=LAST_BAR, page_rows=78)["AAPL"])) == 78
        assert len(calls(market)) == 1

    def test_have_the_request_time_of_the_first_page(self, market: TwelveDataEmulator) -> None:
        waits = Waits()
        [answer] = fetch(market, end=LAST_BAR, page_rows=50, credits_per_minute=1, waits=waits).values()
        assert isinstance(answer, Answer)
        assert len(waits.seconds) == 1
        assert answer.requested_at == DAY_CLOSES

    @pytest.mark.parametrize("kind", ["outside_session", "off_grid", "bad_timestamp", "future_bar", "missing_field"])
    def test_are_complete_although_a_bar_is_spoiled(self, market: TwelveDataEmulator, kind: Any) -> None:
        """The time of the spoiled bar is unknown. Each other bar still comes once."""
        start = last_sessions(DAY_CLOSES, 3)[0].opens
        for ts in (LAST_BAR - 40 * BAR, LAST_BAR - 45 * BAR):  # the page's oldest bar is 49 before the last
            market.switches.clear()
            market.switches.fail(kind, ts=ts, times=None, field="datetime")
            [answer] = fetch(market, start=start, end=LAST_BAR, page_rows=50).values()
            assert isinstance(answer, Answer)
            wanted = {row[0] for row in expected(MARKET, "AAPL", start, LAST_BAR)} - {f"{ts:%Y-%m-%d %H:%M:%S}"}
            stamps = [value.get("datetime") for value in answer.values]
            assert [stamps.count(stamp) for stamp in sorted(wanted)] == [1] * len(wanted)

    def test_that_do_not_go_back_are_an_error_of_that_symbol_only(self, emulator: Emulators) -> None:
        class Stuck(SyntheticBars):
            """A market that returns its newest bars of STUCK for any end of the range."""

            def rows(self, symbol: str, start: datetime, end: datetime) -> list[Row]:
                found = super().rows(symbol, start, end)
                return [(LAST_BAR, *row[1:]) for row in found] if symbol == "STUCK" else found

        api = emulator(Stuck(seed=7), clock=CLOCK)
        CLOCK.now = DAY_CLOSES
        results = fetch(api, "STUCK,AAPL", end=LAST_BAR, page_rows=50)
        assert isinstance(results["STUCK"], SymbolError)
        assert len(rows(results["AAPL"])) == 78

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        page_rows=st.integers(2, 100),
        pages=st.floats(0.1, 5),
        inclusive=st.booleans(),
        unordered=st.booleans(),
        batch_size=st.integers(1, 3),
    )
    def test_return_each_bar_once_for_any_size_and_order(
        self,
        market: TwelveDataEmulator,
        page_rows: int,
        pages: float,
        inclusive: bool,
        unordered: bool,
        batch_size: int,
    ) -> None:
        market.switches.clear()
        market.switches.end_date_inclusive = inclusive
        if unordered:
            market.switches.fail("unordered", times=None)
        start = SLOTS[-1 - int(page_rows * pages)]
        series = client(market, page_rows=page_rows, batch_size=batch_size)
        results = by_symbol(series.time_series(["AAPL", "MSFT"], start, LAST_BAR))
        for symbol in ("AAPL", "MSFT"):
            assert rows(results[symbol]) == expected(MARKET, symbol, start, LAST_BAR)
