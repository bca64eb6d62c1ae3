"""The client stays within the plan's credits for each minute and day, on a clock that it shares with the emulator."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from clients import Emulators, Waits, by_symbol, calls, client, fetch, rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS, MARKET, ask, limit

from barflow.errors import VendorRefusedError
from barflow.pipeline.backfill import plan
from emulators.twelvedata.server import TwelveDataEmulator

SYMBOLS = "A,B,C,D,E,F,G,H,I,J"
NEARLY_MIDNIGHT = datetime(2025, 7, 2, 23, 59, 30, tzinfo=UTC)


@pytest.fixture
def basic(market: TwelveDataEmulator) -> TwelveDataEmulator:
    """Return an emulator with the limits of the Basic plan."""
    limit(market, per_minute=8, per_day=800)
    return market


def statuses(api: TwelveDataEmulator) -> list[int | None]:
    return [call.status for call in api.requests]


class TestByTheMinute:
    def test_a_batch_uses_the_credits_left_and_the_rest_waits(self, basic: TwelveDataEmulator) -> None:
        CLOCK.now = DAY_CLOSES + timedelta(seconds=20)
        waits = Waits()
        results = fetch(basic, SYMBOLS, credits_per_minute=8, batch_size=5, waits=waits)
        assert [*map(len, calls(basic))] == [5, 3, 2]
        assert [call.at for call in basic.requests] == [
            DAY_CLOSES + timedelta(seconds=seconds) for seconds in (20, 20, 61)
        ]
        assert waits.reported == [(41.0, "the API credits of this minute are used up; I, J next")]
        assert list(results) == SYMBOLS.split(",")
        assert set(statuses(basic)) == {200}

    def test_a_batch_never_exceeds_the_minutes_credits(self, basic: TwelveDataEmulator) -> None:
        fetch(basic, SYMBOLS, credits_per_minute=4, batch_size=120)
        assert [*map(len, calls(basic))] == [4, 4, 2]

    def test_credits_used_by_other_programs_count(self, basic: TwelveDataEmulator) -> None:
        """The header api-credits-left shows them before a call is refused."""
        ask(basic, "V,W,X,Y")
        fetch(basic, "A,B,C,D,E,F", credits_per_minute=8, batch_size=2)
        assert [*map(len, calls(basic))] == [4, 2, 2, 2]
        assert set(statuses(basic)) == {200}

    def test_without_headers_the_client_counts_by_itself(self, basic: TwelveDataEmulator) -> None:
        basic.switches.credit_headers = False
        fetch(basic, SYMBOLS, credits_per_minute=8, batch_size=8)
        assert statuses(basic) == [200, 200]

    @pytest.mark.parametrize("counted", [True, False], ids=["refusals-count", "refusals-are-free"])
    @pytest.mark.parametrize("partly", [True, False], ids=["in-part", "whole"])
    @pytest.mark.parametrize("headers", [True, False], ids=["headers", "no-headers"])
    def test_a_setting_above_the_plan_is_corrected_by_the_first_refusal(
        self, basic: TwelveDataEmulator, counted: bool, partly: bool, headers: bool
    ) -> None:
        switches = basic.switches
        switches.refused_calls_count, switches.partial_batches, switches.credit_headers = counted, partly, headers
        results = fetch(basic, SYMBOLS, credits_per_minute=610, batch_size=120)
        assert [len(rows(result)) for result in results.values()] == [78] * 10
        assert max(map(len, calls(basic)[1:])) <= 8
        assert len(basic.requests) <= 4

    def test_credits_that_others_leave_are_used_in_smaller_batches(self, emulator: Emulators) -> None:
        """Another program uses 6 of 8 credits when a minute begins, and no header shows it."""
        waits = Waits()
        api = emulator(clock=CLOCK, credits_per_minute=8)
        CLOCK.now = DAY_CLOSES
        api.switches.credit_headers = api.switches.refused_calls_count = False

        def sleep(seconds: float) -> None:
            waits.sleep(seconds)
            ask(api, "S,T,U,V,W,X")

        ask(api, "S,T,U,V,W,X")
        series = client(api, credits_per_minute=8, sleep=sleep).time_series(list("ABCD"), DAY_OPENS, DAY_CLOSES)
        assert list(by_symbol(series)) == list("ABCD")

    def test_repeated_refusals_for_the_minute_raise(self, basic: TwelveDataEmulator) -> None:
        limit(basic, per_minute=0)
        with pytest.raises(VendorRefusedError, match="6 times in a row: You have run out of API credits") as error:
            fetch(basic, "AAPL,MSFT")
        assert "Stop other programs that use the same key" in str(error.value)
        assert CLOCK.now == DAY_CLOSES + timedelta(minutes=5, seconds=1)

    def test_failed_calls_use_credits(self, basic: TwelveDataEmulator) -> None:
        basic.switches.fail("broken_off", times=2)
        fetch(basic, "A,B,C", credits_per_minute=8)
        assert [*map(len, calls(basic))] == [3, 3, 2, 1]
        assert set(statuses(basic)) == {200}

    def test_pages_use_credits(self, basic: TwelveDataEmulator) -> None:
        results = fetch(basic, "A,B,C", credits_per_minute=8, page_rows=28)
        assert [len(rows(result)) for result in results.values()] == [78] * 3
        assert set(statuses(basic)) == {200}
        assert sum(map(len, calls(basic))) == 9


class TestByTheDay:
    def test_the_clients_count_stops_it_before_a_refusal(self, basic: TwelveDataEmulator) -> None:
        series = client(basic, credits_per_day=5, batch_size=3).time_series(SYMBOLS.split(","), DAY_OPENS, DAY_CLOSES)
        assert [next(series).symbol for _ in range(5)] == list("ABCDE")
        with pytest.raises(VendorRefusedError, match=r"before F\. They are renewed at 2025-07-03 00:00 UTC"):
            next(series)
        assert calls(basic) == [("A", "B", "C"), ("D", "E")]

    def test_credits_are_renewed_at_midnight_utc(self, basic: TwelveDataEmulator) -> None:
        limit(basic, per_minute=8, per_day=8)
        CLOCK.now = NEARLY_MIDNIGHT
        waits = Waits()
        own = client(basic, waits, credits_per_minute=8, credits_per_day=8)
        by_symbol(own.time_series(SYMBOLS.split(",")[:8], DAY_OPENS, DAY_CLOSES))
        with pytest.raises(VendorRefusedError):
            by_symbol(own.time_series(["I"], DAY_OPENS, DAY_CLOSES))
        CLOCK.now += timedelta(seconds=31)
        assert list(by_symbol(own.time_series(["I", "J"], DAY_OPENS, DAY_CLOSES))) == ["I", "J"]
        assert set(statuses(basic)) == {200}

    def test_a_refusal_for_the_day_is_remembered_until_midnight(self, basic: TwelveDataEmulator) -> None:
        limit(basic, per_day=2)
        own = client(basic)
        for _ in range(3):
            with pytest.raises(VendorRefusedError, match=r"before A, B, C\. They are renewed"):
                by_symbol(own.time_series(["A", "B", "C"], DAY_OPENS, DAY_CLOSES))
        assert len(basic.requests) == 1
        CLOCK.now = datetime(2025, 7, 3, 0, 0, 1, tzinfo=UTC)
        assert list(by_symbol(own.time_series(["A", "B"], DAY_OPENS, DAY_CLOSES))) == ["A", "B"]

    def test_partial_answers_are_returned_before_the_error(self, basic: TwelveDataEmulator) -> None:
        basic.switches.partial_batches = True
        limit(basic, per_day=2)
        series = client(basic).time_series(["A", "B", "C"], DAY_OPENS, DAY_CLOSES)
        assert [next(series).symbol, next(series).symbol] == ["A", "B"]
        with pytest.raises(VendorRefusedError, match=r"before C\. They are renewed"):
            next(series)


def test_a_backfill_makes_the_calls_of_its_plan(basic: TwelveDataEmulator) -> None:
    """The moments match too, since the plan simulates the client and has no formula of its own."""
    limit(basic, per_minute=8, per_day=16)
    CLOCK.now = started = NEARLY_MIDNIGHT - timedelta(minutes=1)
    symbols, limits = SYMBOLS.split(","), {"credits_per_minute": 8, "credits_per_day": 16}
    planned = plan(symbols, date(2025, 3, 3), date(2025, 7, 1), now=started, batch_size=6, **limits)
    assert (len(planned.chunks), planned.days) == (2, 2)
    own = client(basic, batch_size=6, **limits)
    assert {own.first_bar(symbol) for symbol in symbols} == {MARKET.first.date()}
    for start, end in planned.chunks:
        wanted = symbols
        while wanted:
            try:
                for result in own.time_series(wanted, start, end):
                    wanted = [symbol for symbol in wanted if symbol != result.symbol]
            except VendorRefusedError:
                CLOCK.now = datetime(2025, 7, 3, 0, 0, 1, tzinfo=UTC)
    assert [*map(len, calls(basic))] == [1] * 10 + [6, 4, 4, 2, 4]
    assert set(statuses(basic)) == {200}
    assert planned.calls == len(basic.requests)
    assert planned.minutes == len({call.at.replace(second=0) for call in basic.requests})
    assert planned.finishes_at - timedelta(minutes=1) <= basic.requests[-1].at < planned.finishes_at


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    per_minute=st.integers(1, 12),
    per_day=st.integers(1, 60),
    batch_size=st.integers(1, 12),
    count=st.integers(1, 30),
    second=st.integers(0, 59),
)
def test_no_call_is_refused_and_no_credit_is_wasted(
    market: TwelveDataEmulator, per_minute: int, per_day: int, batch_size: int, count: int, second: int
) -> None:
    limit(market, per_minute=per_minute, per_day=per_day)
    market.requests.clear()
    CLOCK.now = DAY_CLOSES + timedelta(seconds=second)
    symbols = [f"S{n}" for n in range(count)]
    own = client(market, credits_per_minute=per_minute, credits_per_day=per_day, batch_size=batch_size)
    series = own.time_series(symbols, DAY_CLOSES - timedelta(minutes=5), DAY_CLOSES)
    found: list[str] = []
    try:
        found.extend(result.symbol for result in series)
    except VendorRefusedError:
        assert count > per_day
    assert found == symbols[:per_day]
    assert set(statuses(market)) == {200}
    minutes = Counter[datetime]()
    for call in market.requests:
        minutes[call.at.replace(second=0)] += call.credits
    assert max(minutes.values()) <= per_minute
    assert len(minutes) == -(-len(found) // per_minute), "a minute's credits were left unused"
