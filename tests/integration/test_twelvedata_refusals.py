"""The Twelve Data emulator refuses requests and counts credits like the API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from twelvedata_calls import CLOCK, DAY_CLOSES, MARKET, ask, limit, reset

from emulators.twelvedata.server import TwelveDataEmulator


@pytest.fixture(scope="module")
def server() -> Iterator[TwelveDataEmulator]:
    with TwelveDataEmulator(MARKET, clock=CLOCK) as running:
        yield running


@pytest.fixture
def api(server: TwelveDataEmulator) -> TwelveDataEmulator:
    """The server of this module, reset to its defaults."""
    return reset(server)


class TestRefusals:
    @pytest.mark.parametrize(
        ("params", "code", "text"),
        [
            ({"interval": "1min"}, 400, "Invalid **interval** provided: 1min. Supported intervals: 1min, 5min"),
            ({"interval": None}, 400, "Invalid **interval**"),
            ({"outputsize": 5001}, 400, "**outputsize**"),
            ({"outputsize": 0}, 400, "**outputsize**"),
            ({"outputsize": "many"}, 400, "**outputsize**"),
            ({"outputsize": "9" * 5000}, 400, "**outputsize**"),
            ({"start_date": "yesterday"}, 400, "**start_date**"),
            ({"end_date": "2025-07-02 15:30:00+00:00"}, 400, "**end_date**"),
            ({"timezone": "Mars/Olympus"}, 400, "**timezone**"),
            ({"timezone": "../secret"}, 400, "**timezone**"),
            ({"order": "random"}, 400, "**order**"),
            ({"dp": 12}, 400, "**dp**"),
            ({"format": "CSV"}, 400, "**format**"),
            ({"symbol": ""}, 404, "**symbol** or **figi**"),
            ({"symbol": ",".join(f"S{n}" for n in range(121))}, 414, "120"),
        ],
    )
    def test_a_bad_parameter(self, api: TwelveDataEmulator, params: dict[str, Any], code: int, text: str) -> None:
        answer = ask(api, **params)
        assert answer.status_code == answer.json()["code"] == code
        assert answer.json()["status"] == "error"
        assert text in answer.json()["message"]
        assert api.requests[-1].credits == 0

    def test_120_symbols_are_accepted(self, api: TwelveDataEmulator) -> None:
        assert len(ask(api, ",".join(f"S{n}" for n in range(120)), outputsize=1).json()) == 120

    def test_an_error_has_status_200_by_switch(self, api: TwelveDataEmulator) -> None:
        api.switches.error_status_is_200 = True
        answer = ask(api, "UNKNOWN")
        assert (answer.status_code, answer.json()["code"]) == (200, 404)

    def test_an_endpoint_outside_the_plan(self, api: TwelveDataEmulator) -> None:
        api.switches.endpoint_in_plan = False
        answer = ask(api)
        assert answer.status_code == 403
        assert "/time_series is available exclusively with" in answer.json()["message"]

    def test_a_batch_contains_the_errors_of_its_symbols(self, api: TwelveDataEmulator) -> None:
        api.switches.plan_symbols = {"PLAN"}
        answer = ask(api, "AAPL,UNKNOWN,PLAN,MSFT")
        assert answer.status_code == 200
        assert list(answer.json()) == ["AAPL", "UNKNOWN", "PLAN", "MSFT"]
        codes = {symbol: body.get("code", body["status"]) for symbol, body in answer.json().items()}
        assert codes == {"AAPL": "ok", "UNKNOWN": 404, "PLAN": 404, "MSFT": "ok"}

    def test_a_batch_is_keyed_as_requested(self, api: TwelveDataEmulator) -> None:
        answer = ask(api, "aapl, MSFT:NASDAQ").json()
        assert {symbol: body["meta"]["symbol"] for symbol, body in answer.items()} == {
            "aapl": "AAPL",
            "MSFT:NASDAQ": "MSFT",
        }


class TestTheKey:
    def test_is_accepted_in_header_or_url_and_only_its_place_is_recorded(self, api: TwelveDataEmulator) -> None:
        assert ask(api).status_code == 200
        assert ask(api, key=None, apikey="emulator-key").status_code == 200
        assert ask(api, key=None).status_code == 401
        assert [call.key_in for call in api.requests] == ["header", "url", None]
        assert "emulator-key" not in repr(api.requests)

    def test_demo_is_valid_for_apple_only(self, api: TwelveDataEmulator) -> None:
        assert ask(api, "AAPL", key="demo").status_code == 200
        assert ask(api, "AAPL,MSFT", key="demo").status_code == 401

    def test_a_request_is_recorded_with_its_answer(self, api: TwelveDataEmulator) -> None:
        ask(api, "AAPL,MSFT", outputsize=5)
        [call] = api.requests
        assert (call.path, call.symbols, call.credits, call.status) == ("/time_series", ("AAPL", "MSFT"), 2, 200)
        assert call.params["outputsize"] == "5"


class TestCredits:
    @pytest.fixture
    def basic(self, api: TwelveDataEmulator) -> TwelveDataEmulator:
        """The server under the limits of the Basic plan."""
        limit(api, per_minute=8, per_day=800)
        return api

    def test_one_credit_per_symbol_for_any_outputsize(self, basic: TwelveDataEmulator) -> None:
        answer = ask(basic, "AAPL,MSFT,NVDA", outputsize=5000)
        assert (answer.headers["api-credits-used"], answer.headers["api-credits-left"]) == ("3", "5")

    def test_the_minutes_credits_are_restored_at_the_next_clock_minute(self, basic: TwelveDataEmulator) -> None:
        CLOCK.now = DAY_CLOSES + timedelta(seconds=59)
        ask(basic, ",".join(f"S{n}" for n in range(8)))
        assert ask(basic).status_code == 429
        CLOCK.now += timedelta(seconds=1)
        assert ask(basic).status_code == 200

    def test_the_days_credits_are_restored_at_midnight_utc(self, basic: TwelveDataEmulator) -> None:
        limit(basic, per_minute=8, per_day=1)
        CLOCK.now = datetime(2025, 7, 2, 23, 59, 59, tzinfo=UTC)
        assert ask(basic).status_code == 200
        assert "for the day" in ask(basic).json()["message"]
        CLOCK.now += timedelta(seconds=1)
        assert ask(basic).status_code == 200

    def test_a_batch_above_the_credits_left_is_refused_entirely(self, basic: TwelveDataEmulator) -> None:
        ask(basic, "AAPL,MSFT,NVDA")
        answer = ask(basic, "A,B,C,D,E,F")
        assert answer.status_code == 429
        assert "9 API credits were used, with the current limit being 8" in answer.json()["message"]

    def test_a_batch_above_the_credits_left_is_answered_in_part_by_switch(self, basic: TwelveDataEmulator) -> None:
        basic.switches.partial_batches = True
        ask(basic, "AAPL,MSFT,NVDA")
        answer = ask(basic, "A,B,C,D,E,F")
        assert answer.status_code == 200
        assert [body.get("code", "ok") for body in answer.json().values()] == ["ok"] * 5 + [429]
        assert ask(basic, "A,B").status_code == 429

    @pytest.mark.parametrize(("count", "after"), [(True, 429), (False, 200)])
    def test_refused_calls_use_credits_by_switch(self, basic: TwelveDataEmulator, count: bool, after: int) -> None:
        basic.switches.refused_calls_count = count
        ask(basic, "A,B,C")
        ask(basic, "A,B,C,D,E,F")
        assert ask(basic, "AAPL").status_code == after

    def test_credit_headers_are_absent_by_switch(self, basic: TwelveDataEmulator) -> None:
        basic.switches.credit_headers = False
        assert "api-credits-left" not in ask(basic).headers

    def test_api_usage_describes_the_plan(self, basic: TwelveDataEmulator) -> None:
        ask(basic, "AAPL,MSFT")
        headers = {"Authorization": "apikey emulator-key"}
        usage = requests.get(f"{basic.url}/api_usage", headers=headers, timeout=10)
        assert usage.json() == {
            "timestamp": "2025-07-02 20:00:00",
            "current_usage": 3,
            "plan_limit": 8,
            "daily_usage": 3,
            "plan_daily_limit": 800,
            "plan_category": "basic",
        }
        assert requests.get(f"{basic.url}/api_usage", timeout=10).status_code == 401
