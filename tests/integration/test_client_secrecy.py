"""The key is in a header only: in no URL, log, message, exception, repr or stored answer (guarantee G7)."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from clients import Emulators, Waits, client, fetch
from pydantic import SecretStr
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS

from barflow.errors import BadInputError, BarflowError
from barflow.twelvedata.client import RawResponse, SymbolError, TwelveDataClient
from barflow.twelvedata.http import Http, NoAnswerError
from emulators.twelvedata.server import TwelveDataEmulator

KEY = "s3cr3t+Key/0123456789abcdef"
ECHO = f"apikey {KEY} ({quote(KEY, safe='')}) is "


@pytest.fixture
def api(emulator: Emulators) -> TwelveDataEmulator:
    """Return an emulator that accepts only this key."""
    CLOCK.now = DAY_CLOSES
    return emulator(clock=CLOCK, api_key=KEY)


def everything_in(error: BaseException | None) -> str:
    """Return the text of everything that an exception and its causes show and hold."""
    shown = ""
    while error is not None:
        shown += "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)
        for held in vars(error).values():
            shown += repr(held) + repr(getattr(held, "headers", "")) + repr(getattr(held, "url", ""))
        error = error.__cause__ or error.__context__
    return shown


def hides(text: str) -> bool:
    return KEY not in text and quote(KEY, safe="") not in text and KEY[:8] not in text


def test_the_key_is_in_no_log_of_barflow_or_a_library(
    api: TwelveDataEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")  # a channel of this process may have silenced it
    api.switches.fail("http_error")
    api.switches.fail("dropped")
    fetch(api, "AAPL,UNKNOWN", key=KEY)
    assert any(record.name.startswith("urllib3") for record in caplog.records)
    assert hides(caplog.text)
    assert hides(repr([vars(record) for record in caplog.records]))


def test_the_key_is_in_the_header_only(api: TwelveDataEmulator) -> None:
    fetch(api, key=KEY)
    [call] = api.requests
    assert (call.key_in, "apikey" in call.params) == ("header", False)


def test_the_key_is_in_no_repr(api: TwelveDataEmulator) -> None:
    own = client(api, key=KEY)

    def walk(thing: object, depth: int) -> str:
        parts = vars(thing).values() if hasattr(thing, "__dict__") and depth else []
        return repr(thing) + "".join(walk(part, depth - 1) for part in parts)

    assert hides(repr(own) + str(own))
    assert hides(walk(own._calls._http._auth, 1) + walk(own._calls, 1))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("vendor_error", {"status": 400, "text": f"{ECHO}bad"}),
        ("vendor_error", {"status": 401, "text": f"{ECHO}wrong"}),
        ("vendor_error", {"status": 403, "text": f"{ECHO}not in the plan"}),
        ("vendor_error", {"status": 429, "text": f"{ECHO}out of credits for the day"}),
        ("vendor_error", {"status": 429, "text": f"{ECHO}out of credits"}),
        ("vendor_error", {"status": 500, "text": f"{ECHO}lost"}),
        ("vendor_error", {"status": 400, "text": "x" * 390 + ECHO}),
        ("http_error", {}),
        ("truncated_json", {}),
        ("broken_off", {}),
        ("dropped", {}),
        ("timeout", {"seconds": 1.0}),
    ],
)
def test_the_key_is_in_no_error_that_ends_the_call(api: TwelveDataEmulator, kind: Any, options: dict[str, Any]) -> None:
    """It is not there even when the answer repeats the key, nor in anything that the exception or its causes hold."""
    api.switches.fail(kind, times=None, **options)
    waits, raw = Waits(), list[RawResponse]()
    with pytest.raises(BarflowError) as error:
        fetch(api, key=KEY, waits=waits, raw=raw, attempts=2, timeout=(1.0, 0.1))
    assert hides(everything_in(error.value))
    assert hides(repr(waits.reported))
    assert hides(repr(raw))


@pytest.mark.parametrize("kind", ["broken_off", "dropped", "timeout"])
def test_the_librarys_exceptions_that_hold_the_key_are_not_chained(api: TwelveDataEmulator, kind: Any) -> None:
    api.switches.fail(kind, seconds=1.0)
    http = Http(api.url, SecretStr(KEY), timeout=(1.0, 0.1), deadline=10, clock=CLOCK, session=None)
    with pytest.raises(NoAnswerError) as error:
        http.get("/time_series", {"symbol": "AAPL", "interval": "5min"}, ("AAPL",), None)
    assert (error.value.__cause__, error.value.__context__) == (None, None)


@pytest.mark.parametrize("code", [400, 404, 500])
def test_the_key_is_in_no_error_of_a_symbol(api: TwelveDataEmulator, code: int) -> None:
    api.switches.fail("vendor_error", status=code, text=f"{ECHO}no good", symbol="MSFT", times=None)
    raw = list[RawResponse]()
    results = fetch(api, "AAPL,MSFT", key=KEY, raw=raw, attempts=2)
    refused = results["MSFT"]
    assert isinstance(refused, SymbolError)
    assert refused.message.endswith("apikey [key] ([key]) is no good")
    assert hides(repr(refused) + repr(raw))


def test_a_netrc_file_does_not_replace_the_key(
    api: TwelveDataEmulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    fetch(api, key=KEY, session=requests.Session())
    assert [(call.key_in, call.status) for call in api.requests] == [("header", 200)]


def test_no_proxy_gets_the_key_of_a_call_to_this_machine(
    api: TwelveDataEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:pass@127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    fetch(api, key=KEY)
    assert [call.status for call in api.requests] == [200]


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "umlaut-ä", "tab\tbed", "null\0"])
def test_a_malformed_key_is_bad_input_and_is_not_shown(key: str) -> None:
    with pytest.raises(BadInputError, match="TWELVEDATA_API_KEY") as error:
        client("http://127.0.0.1:9", key=key)
    assert key not in everything_in(error.value)
    assert repr(key) not in everything_in(error.value)


def test_a_line_break_after_the_key_is_ignored(api: TwelveDataEmulator) -> None:
    fetch(api, key=f"{KEY}\n")
    assert [call.status for call in api.requests] == [200]


def test_an_empty_key_means_the_public_key(api: TwelveDataEmulator) -> None:
    options: dict[str, Any] = {"credits_per_minute": 8, "credits_per_day": None, "batch_size": 8}
    own = TwelveDataClient(api.url, SecretStr(""), **options)
    assert len(list(own.time_series(["AAPL"], DAY_OPENS, DAY_CLOSES))) == 1
