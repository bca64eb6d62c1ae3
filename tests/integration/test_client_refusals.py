"""The client handles each error of Twelve Data, in both of its styles, for one symbol and in a batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from clients import Waits, by_symbol, calls, client, expected, fetch, rows
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS, MARKET, limit

from barflow.errors import BadInputError, BarflowError, DayIsSpentError, UnavailableError, VendorRefusedError
from barflow.twelvedata.client import Answer, RawResponse, SymbolError
from emulators.twelvedata.server import TwelveDataEmulator

GOOD = expected(MARKET, "AAPL", DAY_OPENS, DAY_CLOSES)
SERIES = b'{"meta":{"symbol":"X"},"values":[],"status":"ok"}'
PLAN = "This symbol is available starting with the Grow or Venture plan."


@pytest.fixture(params=[False, True], ids=["http-status", "in-a-200"])
def api(request: pytest.FixtureRequest, market: TwelveDataEmulator) -> TwelveDataEmulator:
    """Return an emulator that reports errors in one of Twelve Data's two styles."""
    market.switches.error_status_is_200 = request.param
    return market


class TestARefusedCall:
    def test_for_no_data_is_an_empty_answer(self, api: TwelveDataEmulator) -> None:
        text = "No data is available on the specified dates. Try setting different start/end dates."
        api.switches.fail("vendor_error", status=400, text=text)
        assert fetch(api, "AAPL,MSFT") == {symbol: Answer(symbol, {}, [], DAY_CLOSES) for symbol in ("AAPL", "MSFT")}

    @pytest.mark.parametrize("symbols", ["AAPL", "AAPL,MSFT"])
    def test_for_a_range_before_the_listing_is_an_empty_answer(self, api: TwelveDataEmulator, symbols: str) -> None:
        api.switches.listed = {"AAPL": DAY_CLOSES}
        results = fetch(api, symbols, DAY_OPENS, DAY_CLOSES - timedelta(hours=1))
        assert results["AAPL"] == Answer("AAPL", {}, [], DAY_CLOSES)

    def test_for_an_unknown_reason_with_404_is_a_wrong_address(self, api: TwelveDataEmulator) -> None:
        """Twelve Data answers 404 for unknown paths too: only its words tell a wrong symbol from a wrong address."""
        text = "Endpoint not found. Please check the documentation."
        api.switches.fail("vendor_error", status=404, text=text)
        with pytest.raises(BadInputError, match=r"URL is not the address of the API: it answered error 404: Endpoint"):
            fetch(api, "AAPL,MSFT")
        assert len(api.requests) == 1

    def test_for_a_bad_parameter_is_not_retried(self, api: TwelveDataEmulator) -> None:
        with pytest.raises(BadInputError, match=r"refused AAPL.*\*\*outputsize\*\*.*unchanged") as error:
            fetch(api, page_rows=5001)
        assert (error.value.exit_code, len(api.requests)) == (2, 1)

    def test_for_a_wrong_key_raises(self, api: TwelveDataEmulator) -> None:
        with pytest.raises(VendorRefusedError, match="TWELVEDATA_API_KEY is not a valid key") as error:
            fetch(api, "AAPL,MSFT", key="wrong-key", batch_size=1)
        assert (error.value.exit_code, len(api.requests)) == (3, 1)

    def test_for_a_missing_key_raises_where_the_public_key_is_not_enough(self, api: TwelveDataEmulator) -> None:
        with pytest.raises(VendorRefusedError, match="TWELVEDATA_API_KEY is not set"):
            fetch(api, "MSFT", key=None)

    def test_for_an_endpoint_outside_the_plan_raises_and_names_the_plans(self, api: TwelveDataEmulator) -> None:
        api.switches.endpoint_in_plan = False
        with pytest.raises(
            VendorRefusedError, match=r"grow or pro or ultra or enterprise plans.*The key's plan"
        ) as error:
            fetch(api, "AAPL,MSFT", batch_size=1)
        assert (error.value.exit_code, len(api.requests)) == (3, 1)

    @pytest.mark.parametrize("symbol", ["UNKNOWN", "PLAN"])
    def test_for_a_symbol_that_is_not_served_is_the_error_of_that_symbol(
        self, api: TwelveDataEmulator, symbol: str
    ) -> None:
        api.switches.plan_symbols = {"PLAN"}
        results = fetch(api, f"{symbol},AAPL", batch_size=1)
        refused = results[symbol]
        assert isinstance(refused, SymbolError)
        assert refused.code == 404
        assert refused.message.startswith(PLAN if symbol == "PLAN" else "**symbol** or **figi**")
        assert rows(results["AAPL"]) == GOOD

    def test_for_too_many_symbols_is_split_and_later_batches_are_smaller(self, api: TwelveDataEmulator) -> None:
        api.switches.fail("vendor_error", status=414, text="Too many symbols")
        results = fetch(api, "A,B,C,D,E,F,G", batch_size=4)
        assert calls(api) == [("A", "B", "C", "D"), ("A", "B"), ("C", "D"), ("E", "F"), ("G",)]
        assert all(isinstance(result, Answer) for result in results.values())

    def test_for_one_symbol_of_a_batch_is_split_until_the_symbol_is_found(self, api: TwelveDataEmulator) -> None:
        api.switches.fail("vendor_error", status=404, text="**symbol** is invalid", times=1)
        api.switches.fail("vendor_error", status=404, text="**symbol** is invalid", symbol="C", after=1, times=None)
        results = fetch(api, "A,B,C,D")
        assert [symbol for symbol, result in results.items() if isinstance(result, SymbolError)] == ["C"]
        assert set(results) == set("ABCD")

    def test_for_the_minutes_credits_waits_for_the_next_minute(self, api: TwelveDataEmulator) -> None:
        limit(api, per_minute=2)
        waits = Waits()
        results = fetch(api, "AAPL,MSFT,NVDA", batch_size=2, waits=waits)
        assert [len(rows(result)) for result in results.values()] == [78] * 3
        assert waits.seconds == [61.0]
        assert "credits of this minute" in waits.reported[0][1]

    def test_for_the_days_credits_raises_with_the_time_of_renewal(self, api: TwelveDataEmulator) -> None:
        limit(api, per_day=2)
        series = client(api, batch_size=1).time_series(["AAPL", "MSFT", "NVDA", "TSLA"], DAY_OPENS, DAY_CLOSES)
        assert [next(series).symbol, next(series).symbol] == ["AAPL", "MSFT"]
        with pytest.raises(VendorRefusedError, match=r"before NVDA.*renewed at 2025-07-03 00:00 UTC") as error:
            next(series)
        assert (error.value.exit_code, len(api.requests)) == (3, 3)

    def test_for_a_server_error_is_retried(self, api: TwelveDataEmulator) -> None:
        api.switches.fail("vendor_error", status=500, times=2)
        waits = Waits()
        assert rows(fetch(api, waits=waits)["AAPL"]) == GOOD
        assert [1 <= waits.seconds[0] <= 2, 2 <= waits.seconds[1] <= 3] == [True, True]
        assert waits.reported[0][1].startswith("error 500: Internal server error.")

    def test_without_a_code_counts_as_a_server_error(self, server: ScriptedServer) -> None:
        server.answers = [(200, b'{"status":"error"}')]
        with pytest.raises(UnavailableError, match="error 500"):
            by_symbol(client(server.url, attempts=1).time_series(["AAPL"], DAY_OPENS, DAY_CLOSES))


class TestAnErrorOfASymbolInABatch:
    @pytest.mark.parametrize("style", [404, 400])
    def test_leaves_the_answers_of_the_others(self, market: TwelveDataEmulator, style: Any) -> None:
        market.switches.unknown_in_batch = style
        market.switches.plan_symbols = {"PLAN"}
        results = fetch(market, "AAPL,UNKNOWN,PLAN,MSFT")
        assert {symbol: getattr(result, "code", 200) for symbol, result in results.items()} == {
            "AAPL": 200,
            "UNKNOWN": style,
            "PLAN": 404,
            "MSFT": 200,
        }
        assert len(market.requests) == 1

    def test_for_no_data_is_an_empty_answer_of_that_symbol(self, market: TwelveDataEmulator) -> None:
        market.switches.fail("vendor_error", status=400, symbol="MSFT", text="No data is available on the dates.")
        results = fetch(market, "AAPL,MSFT")
        assert (rows(results["AAPL"]), rows(results["MSFT"])) == (GOOD, [])

    @pytest.mark.parametrize("code", [400, 403, 404])
    @pytest.mark.parametrize(("text", "final"), [("not in your plan", True), ("try another date", False)])
    def test_is_the_result_of_that_symbol(self, market: TwelveDataEmulator, code: int, text: str, final: bool) -> None:
        market.switches.fail("vendor_error", status=code, symbol="MSFT", text=text)
        results = fetch(market, "MSFT,AAPL")
        assert results["MSFT"] == SymbolError("MSFT", code, text)
        assert results["MSFT"].is_final is final
        assert rows(results["AAPL"]) == GOOD

    def test_is_cut_when_its_text_is_long(self, market: TwelveDataEmulator) -> None:
        market.switches.fail("vendor_error", status=404, symbol="MSFT", text="no " * 5000)
        assert fetch(market, "MSFT,AAPL")["MSFT"] == SymbolError("MSFT", 404, ("no " * 5000)[:400])

    def test_for_a_wrong_key_raises_for_all(self, market: TwelveDataEmulator) -> None:
        market.switches.fail("vendor_error", status=401, symbol="MSFT", text="**apikey** is incorrect")
        with pytest.raises(VendorRefusedError, match="not a valid key"):
            fetch(market, "MSFT,AAPL")

    def test_of_the_server_is_retried_for_that_symbol_only(self, market: TwelveDataEmulator) -> None:
        market.switches.fail("vendor_error", status=500, symbol="MSFT", times=2)
        assert all(isinstance(result, Answer) for result in fetch(market, "AAPL,MSFT,NVDA").values())
        assert calls(market) == [("AAPL", "MSFT", "NVDA"), ("MSFT",), ("MSFT",)]

    def test_of_the_server_becomes_the_symbols_result_when_it_stays(self, server: ScriptedServer) -> None:
        bad = b'{"code":500,"message":"Internal","status":"error"}'
        server.answers = [(200, b'{"A":%b,"B":%b}' % (SERIES, bad)), (200, bad), (500, bad), (200, SERIES)]
        results = by_symbol(client(server.url, attempts=3, batch_size=2).time_series("ABC", DAY_OPENS, DAY_CLOSES))
        assert results["B"] == SymbolError("B", 502, "error 500: Internal")
        assert [type(results[symbol]) for symbol in "AC"] == [Answer, Answer]

    def test_of_all_symbols_raises(self, server: ScriptedServer) -> None:
        server.answers = [(200, b"{}"), (200, b'{"C":%b}' % SERIES)]
        with pytest.raises(UnavailableError, match="for A, B in 2 attempts: the answer lacks this symbol"):
            by_symbol(client(server.url, attempts=2).time_series("AB", DAY_OPENS, DAY_CLOSES))

    @pytest.mark.parametrize("part", [b"null", b"[]", b'{"status":"ok"}', b'{"meta":{},"values":null,"status":"ok"}'])
    def test_for_an_unusable_part_is_retried_and_then_the_symbols_result(
        self, server: ScriptedServer, part: bytes
    ) -> None:
        both = b'{"B":%b,"C":%b}' % (part, part)
        server.answers = [(200, b'{"A":%b,"B":%b,"C":%b}' % (SERIES, part, part)), (200, both), (200, both)]
        results = by_symbol(client(server.url, attempts=3).time_series(list("ABC"), DAY_OPENS, DAY_CLOSES))
        assert {symbol: getattr(result, "code", 200) for symbol, result in results.items()} == {
            "A": 200,
            "B": 502,
            "C": 502,
        }


class TestTheFirstBar:
    def test_is_a_day_for_one_credit(self, api: TwelveDataEmulator) -> None:
        api.switches.listed = {"MSFT": DAY_OPENS + timedelta(hours=2)}
        assert client(api).first_bar("MSFT") == DAY_OPENS.date()
        assert [(call.path, call.credits) for call in api.requests] == [("/earliest_timestamp", 1)]

    def test_is_unknown_where_the_vendor_does_not_say(self, api: TwelveDataEmulator) -> None:
        api.switches.listed = {"MSFT": DAY_CLOSES + timedelta(days=1)}
        assert client(api).first_bar("MSFT") is None
        api.switches.first_bars_in_plan = False
        assert client(api).first_bar("AAPL") is None
        assert client(f"{api.url}/elsewhere").first_bar("AAPL") is None

    def test_of_an_unknown_symbol_is_its_error(self, api: TwelveDataEmulator) -> None:
        error = client(api).first_bar("UNKNOWN")
        assert isinstance(error, SymbolError)
        assert error.is_final

    def test_waits_for_credits_and_raises_for_the_key_and_the_day(self, api: TwelveDataEmulator) -> None:
        limit(api, per_minute=1)
        waits = Waits()
        own = client(api, waits)
        assert [own.first_bar("AAPL"), own.first_bar("MSFT")] == [MARKET.first.date()] * 2
        assert waits.seconds == [60.0 + 1]
        with pytest.raises(VendorRefusedError, match="not a valid key"):
            client(api, key="wrong").first_bar("AAPL")
        limit(api, per_day=0)
        with pytest.raises(DayIsSpentError, match="used up before AAPL"):
            client(api).first_bar("AAPL")

    @pytest.mark.parametrize("body", [b"{}", b'{"datetime":null}', b'{"datetime":"soon"}', b'{"datetime":17}'])
    def test_that_cannot_be_read_is_no_answer(self, server: ScriptedServer, body: bytes) -> None:
        server.answers = [(200, body), (200, b'{"datetime":"2020-02-10 14:30:00","unix_time":1581345000}')]
        assert client(server.url).first_bar("AAPL") == date(2020, 2, 10)
        server.answers = [(200, body)]
        with pytest.raises(UnavailableError):
            client(server.url, attempts=1).first_bar("AAPL")


class TestAFailedCall:
    @pytest.mark.parametrize(
        ("kind", "options", "reason"),
        [
            ("http_error", {"status": 500}, "HTTP 500 with a body that is not the API's"),
            ("http_error", {"status": 502}, "HTTP 502"),
            ("http_error", {"status": 503}, "HTTP 503"),
            ("http_error", {"status": 504}, "HTTP 504"),
            ("http_error", {"status": 408}, "HTTP 408"),
            ("vendor_error", {}, "error 500: Internal server error."),
            ("truncated_json", {}, "HTTP 200 with a body that is not the API's"),
            ("broken_off", {}, "the connection closed during the answer"),
            ("dropped", {}, "the connection failed or was closed"),
            ("timeout", {"seconds": 5.0}, "no answer within 0.5 s"),
        ],
    )
    def test_is_retried_and_then_raises_with_the_reason(
        self, market: TwelveDataEmulator, kind: Any, options: dict[str, Any], reason: str
    ) -> None:
        market.switches.fail(kind, times=2, **options)
        waits = Waits()
        timeout = (5.0, 0.5) if kind == "timeout" else (5.0, 30.0)
        results = fetch(market, "AAPL,MSFT", waits=waits, timeout=timeout)
        assert rows(results["AAPL"]) == GOOD
        assert [text.startswith(reason) for _, text in waits.reported] == [True, True]
        market.switches.fail(kind, times=None, **options)
        with pytest.raises(UnavailableError) as error:
            fetch(market, "AAPL,MSFT", attempts=2, timeout=timeout)
        assert str(error.value).startswith(f"Twelve Data gave no answer for AAPL, MSFT in 2 attempts: {reason}")
        assert "What was stored before is unchanged." in str(error.value)
        assert error.value.exit_code == 1

    def test_is_retried_within_the_given_limits(self, market: TwelveDataEmulator) -> None:
        market.switches.fail("http_error", times=None)
        waits = Waits()
        with pytest.raises(UnavailableError):
            fetch(market, waits=waits, attempts=7, longest_pause=5.0)
        assert len(market.requests) == 7
        assert [int(seconds) for seconds in waits.seconds[:3]] == [1, 2, 4]
        assert max(waits.seconds) <= 5.0

    def test_of_a_missing_symbol_is_retried_for_that_symbol(self, market: TwelveDataEmulator) -> None:
        market.switches.fail("missing_symbol")
        assert [len(rows(result)) for result in fetch(market, "AAPL,MSFT").values()] == [78, 78]
        assert calls(market) == [("AAPL", "MSFT"), ("MSFT",)]

    def test_leaves_out_symbols_that_were_not_requested(self, market: TwelveDataEmulator) -> None:
        market.switches.fail("extra_symbol", text="EXTRA")
        assert list(fetch(market, "AAPL,MSFT")) == ["AAPL", "MSFT"]

    def test_to_an_address_without_a_server_raises(self, market: TwelveDataEmulator) -> None:
        with pytest.raises(UnavailableError, match=r"connection failed.*Check the network and BARFLOW_TWELVEDATA_URL"):
            fetch("http://127.0.0.1:9", attempts=1)

    @pytest.mark.parametrize(
        "url",
        [
            "api.twelvedata.com",
            "ftp://host",
            "https://",
            "https://host/?apikey=x",
            "https://me:pass@host",
            "http://host:x",
            "http://[",
            "",
        ],
    )
    def test_to_a_malformed_address_is_bad_input(self, url: str) -> None:
        with pytest.raises(BadInputError, match="BARFLOW_TWELVEDATA_URL is not an address"):
            fetch(url)

    @pytest.mark.parametrize("status", [301, 302, 400, 404, 405])
    def test_to_another_web_server_is_bad_input(self, server: ScriptedServer, status: int) -> None:
        server.answers = [(status, b"<html>")]
        with pytest.raises(BadInputError, match=f"is not the address of the API: it answered HTTP {status}"):
            by_symbol(client(server.url).time_series(["AAPL"], DAY_OPENS, DAY_CLOSES))
        assert server.calls == 1

    def test_to_a_web_page_is_bad_input(self, server: ScriptedServer) -> None:
        server.answers, server.content_type = [(200, b"<html>")], "text/html; charset=utf-8"
        with pytest.raises(BadInputError, match="it answered HTTP 200 with a web page"):
            by_symbol(client(server.url).time_series(["AAPL"], DAY_OPENS, DAY_CLOSES))
        assert server.calls == 1

    def test_to_another_json_service_is_bad_input(self, market: TwelveDataEmulator) -> None:
        with pytest.raises(BadInputError, match="HTTP 404"):
            fetch(f"{market.url}/elsewhere")

    @pytest.mark.parametrize(
        ("status", "kind"), [(401, VendorRefusedError), (403, VendorRefusedError), (429, VendorRefusedError)]
    )
    def test_with_a_refusals_status_and_no_body_is_that_refusal(
        self, server: ScriptedServer, status: int, kind: type[BarflowError]
    ) -> None:
        server.answers = [(status, b"")] * 9
        with pytest.raises(kind, match=f"HTTP {status} without a message"):
            by_symbol(client(server.url).time_series(["AAPL"], DAY_OPENS, DAY_CLOSES))

    @pytest.mark.parametrize("body", [b"[]", b'"text"', b"", b"null", b"\xff\xfe", b'{"a":NaN}'])
    def test_with_json_that_is_no_object_raises(self, server: ScriptedServer, body: bytes) -> None:
        server.answers = [(200, body)] * 2
        with pytest.raises(UnavailableError, match="HTTP 200"):
            by_symbol(client(server.url, attempts=2).time_series(["AAPL"], DAY_OPENS, DAY_CLOSES))

    def test_is_given_to_on_raw_as_received_too(self, market: TwelveDataEmulator) -> None:
        market.switches.fail("http_error", status=503)
        market.switches.fail("truncated_json")
        market.switches.fail("dropped")
        raw: list[RawResponse] = []
        fetch(market, raw=raw)
        assert [(one.http_status, one.symbols) for one in raw] == [(503, ("AAPL",)), (200, ("AAPL",)), (200, ("AAPL",))]
        assert b"Gateway error" in raw[0].body
        assert raw[2].body.startswith(raw[1].body)

    def test_of_on_raw_is_not_retried(self, market: TwelveDataEmulator) -> None:
        def refuse(_: RawResponse) -> None:
            raise UnavailableError("MongoDB is down")

        with pytest.raises(UnavailableError, match="MongoDB is down"):
            next(client(market).time_series(["AAPL"], DAY_OPENS, DAY_CLOSES, on_raw=refuse))
        assert len(market.requests) == 1


class ScriptedServer(HTTPServer):
    """A server that sends these answers (HTTP status, body) one after the other, and 503 after the last."""

    answers: list[tuple[int, bytes]]
    content_type = ""
    calls = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_GET(self) -> None:
        self.server.calls += 1
        status, body = self.server.answers.pop(0) if self.server.answers else (503, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", self.server.content_type)
        self.send_header("Location", "http://127.0.0.1:9/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Start a server on a free loopback port. A test sets its ``answers``."""
    CLOCK.now = DAY_CLOSES
    with ScriptedServer(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
