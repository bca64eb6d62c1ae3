"""Does the emulator do the harm it is told to do, to the answer it is told to spoil, and to no other?"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from twelvedata_calls import CLOCK, DAY_CLOSES, MARKET, ask, reset

from emulators.twelvedata.bar_source import BAR
from emulators.twelvedata.server import TwelveDataEmulator, main
from emulators.twelvedata.switches import VALUE_KINDS

ROOT = Path(__file__).parents[2]
Value = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[TwelveDataEmulator]:
    with TwelveDataEmulator(MARKET, clock=CLOCK) as running:
        yield running


@pytest.fixture
def api(server: TwelveDataEmulator) -> TwelveDataEmulator:
    """The server of this module, set back to its defaults."""
    return reset(server)


def spoiled(api: TwelveDataEmulator, kind: Any, **options: object) -> tuple[list[Value], list[Value]]:
    """The values of a good answer, and those of the spoiled one; the answer after it is good again."""
    good = ask(api, outputsize=10).json()
    api.switches.fail(kind, **options)
    bad = ask(api, outputsize=10).json()
    assert ask(api, outputsize=10).json() == good
    return good["values"], bad["values"]


def the_changed_bar(good: list[Value], bad: list[Value]) -> tuple[Value, Value]:
    [place] = [place for place, (one, other) in enumerate(zip(good, bad, strict=True)) if one != other]
    return good[place], bad[place]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_gateway_fails_with_a_page_that_is_no_json(api: TwelveDataEmulator, status: int) -> None:
    api.switches.fail("http_error", status=status)
    answer = ask(api)
    assert answer.status_code == status
    with pytest.raises(ValueError):
        answer.json()
    assert ask(api).status_code == 200


def test_the_vendor_fails_in_its_own_form(api: TwelveDataEmulator) -> None:
    api.switches.fail("vendor_error", status=500)
    api.switches.fail("vendor_error", status=429, text="You have run out of API credits for the day.")
    assert [ask(api).json()["code"], ask(api).json()["code"]] == [500, 429]
    api.switches.fail("vendor_error", symbol="MSFT")
    answer = ask(api, "AAPL,MSFT")
    assert answer.status_code == 200
    assert [body["status"] for body in answer.json().values()] == ["ok", "error"]


def test_json_may_be_cut(api: TwelveDataEmulator) -> None:
    api.switches.fail("truncated_json")
    answer = ask(api)
    assert answer.status_code == 200
    with pytest.raises(ValueError):
        answer.json()


def test_a_connection_may_break_in_the_body_or_before_it(api: TwelveDataEmulator) -> None:
    api.switches.fail("broken_off")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        ask(api)
    api.switches.fail("dropped")
    with pytest.raises(requests.exceptions.ConnectionError):
        ask(api)
    assert ask(api).status_code == 200


def test_silence_and_latency(api: TwelveDataEmulator) -> None:
    api.switches.fail("timeout", seconds=20)
    with pytest.raises(requests.exceptions.ReadTimeout):
        ask(api, timeout=1.0)
    assert api.requests[-1].credits == 1, "they are spent, though nobody hears of it"
    api.switches.latency = 0.2
    assert ask(api).elapsed >= timedelta(seconds=0.2)


def test_stopping_does_not_wait_for_a_silent_answer() -> None:
    with TwelveDataEmulator(MARKET, clock=CLOCK) as api:
        api.switches.fail("timeout", seconds=60)
        with pytest.raises(requests.exceptions.ReadTimeout):
            ask(api, timeout=0.2)
        before = time.monotonic()
    assert time.monotonic() - before < 9  # ten where it waits


def test_duplicates_agree_or_not(api: TwelveDataEmulator) -> None:
    good, bad = spoiled(api, "duplicate")
    assert bad == [*good[:6], *good[5:]]
    good, bad = spoiled(api, "conflicting_duplicate")
    assert bad[:6] + bad[7:] == good
    assert bad[6]["datetime"] == bad[5]["datetime"]
    assert bad[6] != bad[5]


def test_values_may_be_unordered(api: TwelveDataEmulator) -> None:
    good, bad = spoiled(api, "unordered")
    order = [value["datetime"] for value in bad]
    assert order not in (sorted(order), sorted(order, reverse=True))
    assert sorted(bad, key=lambda value: value["datetime"], reverse=True) == good


@pytest.mark.parametrize(
    ("kind", "options", "change"),
    [
        ("missing_field", {}, {"close": "gone"}),
        ("missing_field", {"field": "volume"}, {"volume": "gone"}),
        ("null_price", {}, {"close": None}),
        ("nan_price", {"field": "open"}, {"open": "NaN"}),
        ("text_price", {}, {"close": "n/a"}),
        ("zero_price", {}, {"close": "0.00000"}),
        ("negative_volume", {}, {"volume": "-100"}),
        ("bad_timestamp", {}, {"datetime": "2025-07-02 25:61:00"}),
        ("off_grid", {}, {"datetime": "2025-07-02 19:32:00"}),
        ("outside_session", {}, {"datetime": "2025-07-02 03:00:00"}),
        ("future_bar", {}, {"datetime": "2025-07-03 14:30:00"}),
    ],
)
def test_one_bar_is_spoiled(api: TwelveDataEmulator, kind: str, options: dict[str, Any], change: Value) -> None:
    before, after = the_changed_bar(*spoiled(api, kind, **options))
    assert before["datetime"] == "2025-07-02 19:30:00"
    assert {name: after.get(name, "gone") for name in before if after.get(name, "gone") != before[name]} == change


def test_prices_may_be_negative_or_upside_down(api: TwelveDataEmulator) -> None:
    before, after = the_changed_bar(*spoiled(api, "negative_price"))
    assert after["close"] == "-" + before["close"]
    _, after = the_changed_bar(*spoiled(api, "high_below_low"))
    assert float(after["high"]) < float(after["low"])


def test_the_bar_to_spoil_may_be_chosen(api: TwelveDataEmulator) -> None:
    chosen = DAY_CLOSES - BAR * 2
    before, _ = the_changed_bar(*spoiled(api, "null_price", ts=chosen))
    assert before["datetime"] == f"{chosen:%Y-%m-%d %H:%M:%S}"
    good, bad = spoiled(api, "null_price", ts=DAY_CLOSES - timedelta(days=90))
    assert good == bad


def test_a_batch_may_name_the_wrong_symbols(api: TwelveDataEmulator) -> None:
    api.switches.fail("wrong_symbol", symbol="MSFT", text="GOOGL")
    answer = ask(api, "AAPL,MSFT").json()
    assert {asked: body["meta"]["symbol"] for asked, body in answer.items()} == {"AAPL": "AAPL", "MSFT": "GOOGL"}
    api.switches.fail("extra_symbol", text="GOOGL")
    assert list(ask(api, "AAPL,MSFT").json()) == ["AAPL", "MSFT", "GOOGL"]
    api.switches.fail("missing_symbol")
    assert list(ask(api, "AAPL,MSFT").json()) == ["AAPL"]


@pytest.mark.parametrize("kind", sorted(VALUE_KINDS))
def test_every_fault_of_values_leaves_the_other_symbols_alone(api: TwelveDataEmulator, kind: Any) -> None:
    good = ask(api, "AAPL,MSFT").json()
    api.switches.fail(kind, symbol="MSFT")
    bad = ask(api, "AAPL,MSFT").json()
    assert bad["AAPL"] == good["AAPL"]
    assert bad["MSFT"] != good["MSFT"]
    assert api.requests[-1].faults == [kind]


def test_the_queue_is_worked_off_in_order(api: TwelveDataEmulator) -> None:
    api.switches.fail("http_error", status=500, times=2)
    api.switches.fail("http_error", status=503)
    assert [ask(api).status_code for _ in range(4)] == [500, 500, 503, 200]


def test_a_fault_waits_for_its_symbol_and_its_turn(api: TwelveDataEmulator) -> None:
    api.switches.fail("http_error", symbol="MSFT", after=1)
    assert [ask(api, symbol).status_code for symbol in ("AAPL", "MSFT", "AAPL", "MSFT", "MSFT")] == [
        200,
        200,
        200,
        500,
        200,
    ]


def test_a_lasting_fault_is_cleared(api: TwelveDataEmulator) -> None:
    api.switches.fail("http_error", times=None)
    assert [ask(api).status_code for _ in range(3)] == [500] * 3
    api.switches.clear()
    assert ask(api).status_code == 200


def test_a_fault_that_does_not_exist_is_a_mistake(api: TwelveDataEmulator) -> None:
    with pytest.raises(ValueError, match="no such fault"):
        api.switches.fail("earthquake")  # type: ignore[arg-type]


class TestAsItsOwnProcess:
    def test_it_prints_its_address_serves_and_stops_when_told(self, tmp_path: Path) -> None:
        ready = tmp_path / "ready"
        command = [sys.executable, "-m", "emulators.twelvedata.server", "--now", "2025-07-02T20:00+00:00"]
        with subprocess.Popen(
            [*command, "--credits-per-minute", "8", "--ready-file", str(ready)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            headers = {"Authorization": "apikey emulator-key"}
            usage = requests.get(f"{url}/api_usage", headers=headers, timeout=10).json()
            while not ready.exists():
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        assert (usage["plan_limit"], ready.read_text()) == (8, url)

    def test_a_bad_replay_file_ends_it_with_one_line_and_code_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--replay", "no-such-file.csv"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "no-such-file.csv does not exist" in error

    def test_a_taken_port_ends_it_with_one_line(
        self, api: TwelveDataEmulator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--port", api.url.rpartition(":")[2]]) == 2
        assert "is not free" in capsys.readouterr().err
