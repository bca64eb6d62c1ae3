"""The page under attack: half-open connections, event streams, wrong tokens and malformed requests, all at once.

The server is a process of its own, started as on a host. A reader who is signed in gets every answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from flood import HALF_OPEN, MALFORMED, MALFORMED_REQUESTS, STREAMS, WRONG_TOKENS
from page_data import TOKEN, load, session_bars, stage
from pymongo.database import Database

from barflow.staging.connection import Document
from dashboard.live import MAX_PAGES_OF_VISITOR
from dashboard.logins import TOTAL_ATTEMPTS, TOTAL_SECONDS

BARFLOW = Path(sys.executable).with_name("barflow")
FLOOD = Path(__file__).with_name("flood.py")
MAX_GROWTH_MB = 50
# Far more than an answer takes, so that a busy machine passes too.
MAX_SECONDS = 10.0


@contextmanager
def page_process(settings: dict[str, str], log: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run `barflow dashboard` on a free port, and yield its URL and process."""
    with log.open("wb") as written:
        running = subprocess.Popen([BARFLOW, "dashboard", "--port", "0"], env=settings, stderr=written)
    try:
        deadline = time.monotonic() + 60
        while "the page is at " not in (text := log.read_text()):
            assert running.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        yield text.split("the page is at ")[1].split()[0], psutil.Process(running.pid)
    finally:
        running.terminate()
        running.wait(30)


class Reader(threading.Thread):
    """An analyst who reads during the attack, each time on a new connection."""

    def __init__(self, url: str, cookies: dict[str, str], server: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._url, self._cookies, self.over = url, cookies, threading.Event()
        self._tasks = Path(f"/proc/{server.pid}/task")
        self.took: list[float] = []
        self.failed: list[Any] = []

    def run(self) -> None:
        """Read until it is over."""
        while not self.over.wait(0.05):
            for path in ("api/watchlist", "api/session", "", "healthz"):
                started, before = time.monotonic(), self._waited_for_cpu()
                status = self._ask(path)
                if isinstance(status, requests.ConnectionError):
                    # The attackers have the reader's address, so the server may close its connection as their oldest.
                    # A browser then asks again.
                    status = self._ask(path)
                took, after = time.monotonic() - started, self._waited_for_cpu()
                self.took.append(took - max(after[task] - before.get(task, 0) for task in after))
                if status != 200:
                    self.failed.append((path, status))

    def _ask(self, path: str) -> int | requests.RequestException:
        try:
            return requests.get(self._url + path, cookies=self._cookies, timeout=20).status_code
        except requests.RequestException as error:
            return error

    def _waited_for_cpu(self) -> dict[str, float]:
        """Return the seconds that each of the server's threads has waited because other programs used the CPUs."""
        return {
            task.name: int(stat.split()[1]) / 1e9
            for task in self._tasks.iterdir()
            if (stat := _text(task / "schedstat"))
        } or {"unknown": 0.0}


def _text(path: Path) -> str:
    with suppress(OSError):  # the thread has ended
        return path.read_text()
    return ""


@pytest.fixture
def page(
    mongodb_uri: str, database: Database[Document], warehouse_dsn: str, tmp_path: Path
) -> Iterator[tuple[str, psutil.Process, Path]]:
    """Yield the URL, the process and the log of a page with one symbol."""
    load(warehouse_dsn, "AAPL", 10)
    stage(database, session_bars("AAPL"))
    settings = {
        "PATH": "/usr/bin:/bin",
        "BARFLOW_MONGODB_URI": mongodb_uri,
        "BARFLOW_MONGODB_DATABASE": database.name,
        "BARFLOW_WAREHOUSE_DSN": warehouse_dsn,
        "BARFLOW_LAKE_URI": str(tmp_path / "lake"),
        "BARFLOW_DASHBOARD_TOKEN": TOKEN,
    }
    log = tmp_path / "page.log"
    with page_process(settings, log) as (url, process):
        yield url, process, log


def sign_in(url: str, token: str = TOKEN, **options: Any) -> requests.Response:
    request = {"url": f"{url}api/session", "json": {"token": token}, "timeout": 20, **options}
    try:
        return requests.post(**request)
    except requests.ConnectionError:  # closed as the oldest of the attackers' address, as in Reader
        return requests.post(**request)


@pytest.mark.minutes
def test_the_page_answers_its_readers_under_every_attack_at_once(
    page: tuple[str, psutil.Process, Path],
) -> None:
    url, process, log = page
    cookies = sign_in(url).cookies.get_dict()
    attacker = sign_in(url).cookies["barflow_session"]
    reader = Reader(url, cookies, process)
    for _ in range(20):  # what the server loads and caches once
        requests.get(f"{url}api/watchlist", cookies=cookies, timeout=20)
    before = process.memory_info().rss
    reader.start()
    port = url.rsplit(":", 1)[1].strip("/")
    flood = subprocess.Popen([sys.executable, FLOOD, port, attacker], stdout=subprocess.PIPE, text=True)
    started, grown, known_browser = time.monotonic(), 0, set()
    while flood.poll() is None:
        grown = max(grown, process.memory_info().rss - before)
        browser = {"barflow_browser": cookies["barflow_browser"]}
        known_browser.add(sign_in(url, cookies=browser).status_code)
        time.sleep(0.2)
    seconds = time.monotonic() - started
    reader.over.set()
    reader.join(30)
    assert flood.stdout is not None
    seen = json.loads(flood.stdout.read())
    print(f"{seconds:.0f} s, +{grown / 2**20:.1f} MB, slowest {max(reader.took):.3f} s of {len(reader.took)}: {seen}")

    assert (reader.failed, process.is_running()) == ([], True)
    assert max(reader.took) < MAX_SECONDS
    assert grown < MAX_GROWTH_MB * 2**20
    assert known_browser == {200}, "a browser that has signed in before is never locked out"

    assert seen["half_open"] == {"closed": HALF_OPEN}
    # Of the client with most waiting connections, the server closes the oldest: it may be one that asks for a stream.
    closed = seen["streams"].pop("closed", 0)
    assert seen["streams"] == {"200": MAX_PAGES_OF_VISITOR, "429": STREAMS - MAX_PAGES_OF_VISITOR - closed}
    assert closed <= STREAMS / 10
    assert sum(seen["wrong_tokens"].values()) == WRONG_TOKENS
    assert set(seen["wrong_tokens"]) == {"401", "429"}
    assert seen["wrong_tokens"]["401"] <= TOTAL_ATTEMPTS + seconds / TOTAL_SECONDS
    assert sum(seen["malformed"].values()) == MALFORMED
    assert {status for status in seen["malformed"] if not status.startswith("4")} <= {"closed"}
    assert seen["malformed"].get("closed", 0) <= 2 * MALFORMED / len(MALFORMED_REQUESTS)

    deadline = time.monotonic() + 15
    while (answer := sign_in(url)).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(int(answer.headers["retry-after"]))
    assert "Traceback" not in log.read_text()
