"""The faults of the Twelve Data emulator: each changes the answer that it is meant for, and no other."""

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
    """The server of this module, reset to its defaults."""
    return reset(server)


def good_and_bad(api: TwelveDataEmulator, kind: Any, **options: object) -> tuple[list[Value], list[Value]]:
    """Return the values of a correct answer and those with the fault; the next answer must be correct again."""
    good = ask(api, outputsize=10).json()
    api.switches.fail(kind, **options)
    bad = ask(api, outputsize=10).json()
    assert ask(api, outputsize=10).json() == good
    return good["values"], bad["values"]


def changed_bar(good: list[Value], bad: list[Value]) -> tuple[Value, Value]:
    """Return the only bar that differs, in both versions."""
    [position] = [position for position, (one, other) in enumerate(zip(good, bad, strict=True)) if one != other]
    return good[position], bad[position]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_http_error_answers_with_an_html_page(api: TwelveDataEmulator, status: int) -> None:
    api.switches.fail("http_error", status=status)
    answer = ask(api)
    assert answer.status_code == status
    with pytest.raises(ValueError):
        answer.json()
    assert ask(api).status_code == 200


def test_vendor_error_answers_in_the_vendors_format(api: TwelveDataEmulator) -> None:
    api.switches.fail("vendor_error", status=500)
    api.switches.fail("vendor_error", status=429, text="You have run out of API credits for the day.")
    assert [ask(api).json()["code"], ask(api).json()["code"]] == [500, 429]
    api.switches.fail("vendor_error", symbol="MSFT")
    answer = ask(api, "AAPL,MSFT")
    assert answer.status_code == 200
    assert [body["status"] for body in answer.json().values()] == ["ok", "error"]


def test_truncated_json_is_a_complete_answer_with_half_of_the_json(api: TwelveDataEmulator) -> None:
    api.switches.fail("truncated_json")
    answer = ask(api)
    assert answer.status_code == 200
    with pytest.raises(ValueError):
        answer.json()


def test_a_connection_breaks_in_the_body_or_before_it(api: TwelveDataEmulator) -> None:
    api.switches.fail("broken_off")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        ask(api)
    api.switches.fail("dropped")
    with pytest.raises(requests.exceptions.ConnectionError):
        ask(api)
    assert ask(api).status_code == 200


def test_timeout_and_latency(api: TwelveDataEmulator) -> None:
    api.switches.fail("timeout", seconds=20)
    with pytest.raises(requests.exceptions.ReadTimeout):
        ask(api, timeout=1.0)
    assert api.requests[-1].credits == 1, "a call that is not answered uses its credits"
    api.switches.latency = 0.2
    assert ask(api).elapsed >= timedelta(seconds=0.2)


def test_stopping_does_not_wait_for_a_delayed_answer() -> None:
    with TwelveDataEmulator(MARKET, clock=CLOCK) as api:
        api.switches.fail("timeout", seconds=60)
        with pytest.raises(requests.exceptions.ReadTimeout):
            ask(api, timeout=0.2)
    assert not api._thread.is_alive()


def test_duplicates_are_equal_or_conflict(api: TwelveDataEmulator) -> None:
    good, bad = good_and_bad(api, "duplicate")
    assert bad == [*good[:6], *good[5:]]
    good, bad = good_and_bad(api, "conflicting_duplicate")
    assert bad[:6] + bad[7:] == good
    assert bad[6]["datetime"] == bad[5]["datetime"]
    assert bad[6] != bad[5]


def test_unordered_values(api: TwelveDataEmulator) -> None:
    good, bad = good_and_bad(api, "unordered")
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
def test_a_fault_changes_one_bar(api: TwelveDataEmulator, kind: str, options: dict[str, Any], change: Value) -> None:
    before, after = changed_bar(*good_and_bad(api, kind, **options))
    assert before["datetime"] == "2025-07-02 19:30:00"
    assert {name: after.get(name, "gone") for name in before if after.get(name, "gone") != before[name]} == change


def test_negative_price_and_high_below_low(api: TwelveDataEmulator) -> None:
    before, after = changed_bar(*good_and_bad(api, "negative_price"))
    assert after["close"] == "-" + before["close"]
    _, after = changed_bar(*good_and_bad(api, "high_below_low"))
    assert float(after["high"]) < float(after["low"])


def test_a_fault_changes_the_chosen_bar(api: TwelveDataEmulator) -> None:
    chosen = DAY_CLOSES - BAR * 2
    before, _ = changed_bar(*good_and_bad(api, "null_price", ts=chosen))
    assert before["datetime"] == f"{chosen:%Y-%m-%d %H:%M:%S}"
    good, bad = good_and_bad(api, "null_price", ts=DAY_CLOSES - timedelta(days=90))
    assert good == bad


def test_a_batch_has_a_wrong_an_extra_or_a_missing_symbol(api: TwelveDataEmulator) -> None:
    api.switches.fail("wrong_symbol", symbol="MSFT", text="GOOGL")
    answer = ask(api, "AAPL,MSFT").json()
    assert {symbol: body["meta"]["symbol"] for symbol, body in answer.items()} == {"AAPL": "AAPL", "MSFT": "GOOGL"}
    api.switches.fail("extra_symbol", text="GOOGL")
    assert list(ask(api, "AAPL,MSFT").json()) == ["AAPL", "MSFT", "GOOGL"]
    api.switches.fail("missing_symbol")
    assert list(ask(api, "AAPL,MSFT").json()) == ["AAPL"]


@pytest.mark.parametrize("kind", sorted(VALUE_KINDS))
def test_a_fault_of_one_symbol_leaves_the_others_unchanged(api: TwelveDataEmulator, kind: Any) -> None:
    good = ask(api, "AAPL,MSFT").json()
    api.switches.fail(kind, symbol="MSFT")
    bad = ask(api, "AAPL,MSFT").json()
    assert bad["AAPL"] == good["AAPL"]
    assert bad["MSFT"] != good["MSFT"]
    assert api.requests[-1].faults == [kind]


def test_faults_apply_in_the_order_of_the_queue(api: TwelveDataEmulator) -> None:
    api.switches.fail("http_error", status=500, times=2)
    api.switches.fail("http_error", status=503)
    assert [ask(api).status_code for _ in range(4)] == [500, 500, 503, 200]


def test_a_fault_waits_for_its_symbol_and_its_number_of_answers(api: TwelveDataEmulator) -> None:
    api.switches.fail("http_error", symbol="MSFT", after=1)
    assert [ask(api, symbol).status_code for symbol in ("AAPL", "MSFT", "AAPL", "MSFT", "MSFT")] == [
        200,
        200,
        200,
        500,
        200,
    ]


def test_a_permanent_fault_ends_when_it_is_cleared(api: TwelveDataEmulator) -> None:
    api.switches.fail("http_error", times=None)
    assert [ask(api).status_code for _ in range(3)] == [500] * 3
    api.switches.clear()
    assert ask(api).status_code == 200


def test_an_unknown_fault_raises(api: TwelveDataEmulator) -> None:
    with pytest.raises(ValueError, match="unknown fault: earthquake"):
        api.switches.fail("earthquake")  # type: ignore[arg-type]


class TestAsAProcess:
    def test_prints_its_url_serves_and_stops_at_sigterm(self, tmp_path: Path) -> None:
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

    def test_a_bad_replay_file_ends_it_with_one_line_and_exit_code_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--replay", "no-such-file.csv"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "no-such-file.csv does not exist" in error

    def test_a_used_port_ends_it_with_one_line_and_exit_code_2(
        self, api: TwelveDataEmulator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--port", api.url.rpartition(":")[2]]) == 2
        error = capsys.readouterr().err
        assert error.startswith("Cannot listen on port ")
        assert error.count("\n") == 1
