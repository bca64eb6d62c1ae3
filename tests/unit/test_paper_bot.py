"""The example bot trades each alert once, in whichever order alerts arrive and wherever it is killed."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "examples" / "paper_bot.py"
NOW = datetime(2025, 7, 30, 14, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper_bot", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alert(direction: str | None, price: float | None, minute: int = 25, symbol: str = "AAPL", **values: Any) -> Any:
    bar = f"2025-07-30T14:{minute:02}:00Z"
    found = {"rule": "move", "kind": "move", "symbol": symbol, "bar_start": bar, "direction": direction, "price": price}
    return found | {"text": "it moved", "id": f"{values.get('rule', 'move')}|{symbol}|{bar}", **values}


@pytest.fixture
def bot(example: ModuleType, tmp_path: Path) -> Any:
    return example.PaperBot(str(tmp_path / "paper.sqlite"), clock=lambda: NOW)


def test_it_buys_and_sells_and_prints_its_profit(
    example: ModuleType, bot: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bot.handle(alert("up", 100.0, 10)) == "bought 100 at 100.00"
    assert bot.handle(alert("up", 101.0, 15)) == "nothing to do"
    assert bot.handle(alert("up", 1.0, 14, rule="late")) == "older than another alert"
    bot = example.PaperBot(str(tmp_path / "paper.sqlite"), clock=lambda: NOW)
    assert bot.profit() == "profit +0.00 realised, +100.00 open in 1 positions", "after a restart, at the newest price"
    assert bot.handle(alert("down", 103.0, 20)) == "sold 100 at 103.00"
    assert bot.handle(alert("down", 104.0, 25)) == "nothing to do"
    assert bot.handle(alert("up", 3000.0, 25, "NVR")) == "bought 3 at 3000.00"
    assert capsys.readouterr().out.splitlines()[-1] == "profit +300.00 realised, +0.00 open in 1 positions"


def test_it_records_and_does_not_trade_what_it_must_not(bot: Any) -> None:
    assert bot.handle(alert("up", 100.0, 9)) == "too late"
    assert bot.handle(alert(None, None, 25, "*", kind="silence")) == "the feed is silent"
    assert bot.handle(alert(None, 99.0, 20, "MSFT", kind="silence")) == "no side"
    assert bot.handle(alert("down", 10.0, 20, "NVDA", kind="split")) == "no side"
    assert bot.handle(alert(None, 100.0, 20, kind="expression")) == "no side"
    assert bot.handle(alert("up", 100.0, 25, kind="test")) == "a test"
    assert bot.database.execute("select count(*) from handled").fetchone()[0] == 5
    assert bot.profit() == "profit +0.00 realised, +0.00 open in 0 positions"


def test_an_alert_of_the_future_changes_nothing_for_later_ones(bot: Any) -> None:
    assert bot.handle(alert("up", 100.0, 31)) == "its bar has not begun"
    assert bot.handle(alert("up", 50.0, 25)) == "bought 200 at 50.00"
    assert bot.handle(alert("down", 52.0, 30)) == "sold 200 at 52.00"
    assert bot.profit() == "profit +400.00 realised, +0.00 open in 0 positions"


def test_a_message_that_is_no_alert_does_not_end_the_bot(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = iter([{"kind": "move"}, alert("up", 50.0)])

    def from_queue(url: str, handle: Any) -> None:
        handle(next(given, None) or (_ for _ in ()).throw(KeyboardInterrupt))

    monkeypatch.setattr(example, "from_queue", from_queue)
    monkeypatch.setattr(example.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(sys, "argv", ["paper_bot.py", "queue", "URL", "--file", str(tmp_path / "x"), "--simulated"])
    with pytest.raises(KeyboardInterrupt):
        example.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "URL: KeyError. Trying again"
    assert "bought 200 at 50.00" in lines[1]


def test_rules_with_a_condition_are_named(example: ModuleType, tmp_path: Path) -> None:
    bot = example.PaperBot(str(tmp_path / "paper.sqlite"), buy=("dip",), sell=("peak",), clock=lambda: NOW)
    assert bot.handle(alert(None, 50.0, 20, rule="dip", kind="expression")) == "bought 200 at 50.00"
    assert bot.handle(alert(None, 51.0, 25, rule="peak", kind="expression")) == "sold 200 at 51.00"


ALERTS = [alert("up", 100.0, 15), alert("down", 104.0, 25), alert("up", 50.0, 20, "MSFT")]


def test_repeated_and_reordered_alerts_are_traded_at_most_once_and_never_out_of_order(example: ModuleType) -> None:
    for order in itertools.permutations([*ALERTS, *ALERTS], 4):
        bot = example.PaperBot(":memory:", clock=lambda: NOW)
        done: dict[str, list[str]] = {}
        for each in order:
            done.setdefault(each["id"], []).append(bot.handle(each))
        assert all(set(outcomes[1:]) <= {"known"} for outcomes in done.values())
        ids = [each["id"] for each in order]
        up, down = (done.get(each["id"], [""])[0] for each in ALERTS[:2])
        if ALERTS[0]["id"] in ids and ALERTS[1]["id"] in ids:
            in_order = ids.index(ALERTS[0]["id"]) < ids.index(ALERTS[1]["id"])
            expected = ("bought 100 at 100.00", "sold 100 at 104.00")
            assert (up, down) == (expected if in_order else ("older than another alert", "nothing to do"))


@pytest.mark.parametrize("method", ["mark", "trade"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_before_the_commit_leaves_nothing_behind(bot: Any, tmp_path: Path, method: str, when: str) -> None:
    """The next process handles the alert again, as if it came for the first time."""
    file = tmp_path / "paper.sqlite"
    script = f"""
import datetime, os, runpy
made = runpy.run_path({str(FILE)!r})
bot = made["PaperBot"]({str(file)!r}, clock=lambda: datetime.datetime.fromisoformat({NOW.isoformat()!r}))
original = bot.{method}
def dying(alert):
    if {when!r} == "after":
        original(alert)
    os._exit(9)
bot.{method} = dying
bot.handle({ALERTS[0]!r})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    counts = [bot.database.execute(f"select count(*) from {table}").fetchone()[0] for table in ("handled", "positions")]
    assert counts == [0, 0]
    assert bot.handle(ALERTS[0]) == "bought 100 at 100.00"


def test_in_a_simulated_market_the_newest_alert_is_the_clock(example: ModuleType, tmp_path: Path) -> None:
    bot = example.PaperBot(str(tmp_path / "paper.sqlite"), simulated=True, clock=lambda: NOW + timedelta(days=400))
    assert bot.handle(alert("up", 100.0, 10)) == "bought 100 at 100.00"
    assert bot.handle(alert("up", 50.0, 40, "MSFT")) == "bought 200 at 50.00"
    assert bot.handle(alert("up", 50.0, 24, "NVDA")) == "too late"


def test_it_follows_the_alerts_of_a_page(example: ModuleType, bot: Any) -> None:
    body = json.dumps({"alerts": [{"created_at": "x", "message": item} for item in ALERTS[::-1]]}).encode()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/alerts?limit=500" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for _ in range(2):
        example.from_page(f"http://127.0.0.1:{server.server_port}/", bot.handle)
    server.shutdown()
    server.server_close()
    assert bot.profit() == "profit +400.00 realised, +0.00 open in 1 positions"
