"""Services of apprise for tests: a server that takes what json:// and ntfy:// URLs post, with faults."""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from webhook_receivers import DRIP, DROP, LEAK

from barflow.alerts.people import AppriseChannel
from barflow.market.sessions import NEW_YORK
from barflow.settings import Settings

TOKEN = "hidden-token-of-the-service"
TITLE = re.compile(r"(?P<symbol>\S+) \w+: (?P<rule>\w+)")
BAR = re.compile(r" · (\d{4}-\d\d-\d\d \d\d:\d\d) New York$")


class JsonReceiver:
    """A service at ``json://``, running from ``__enter__`` to ``__exit__``, with a token in its path.

    ``taken`` holds the messages that it accepted. ``fault`` is a status, DROP or DRIP, which the next ``times``
    requests meet (-1: all).
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name.replace("-", "_").lower()[:30]
        self.taken: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.requests, self.times = 0, -1
        self.fault: int | str | None = None

    def __enter__(self) -> JsonReceiver:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("ThisHandler", (Handler,), {"receiver": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/{TOKEN}"

    @property
    def ready(self) -> dict[str, Any]:
        """What alert_ticks.prepare needs for a process with this channel."""
        return {"apprise": (self.name, self.url)}

    @property
    def seen_as(self) -> str:
        """What an error names."""
        return f"apprise-{self.name}"

    def channel(self, digest_above: int = 1000) -> AppriseChannel:
        return channel(self.name, self.url, digest_above)

    def acted_ids(self) -> list[str]:
        """Return the ids of the alerts that people saw, each once."""
        return [*dict.fromkeys(_id(item) for item in self.taken)]

    def meets_fault(self) -> bool:
        if self.fault is None or self.times == 0:
            return False
        self.times -= 1
        return True


def channel(name: str, url: str, digest_above: int = 1000) -> AppriseChannel:
    return AppriseChannel(Settings(slack_digest_above=digest_above), name, SecretStr(url))


def _id(item: dict[str, Any]) -> str:
    title, bar = TITLE.fullmatch(item["title"]), BAR.search(item["message"])
    assert title
    assert bar
    start = datetime.strptime(bar[1], "%Y-%m-%d %H:%M").replace(tzinfo=NEW_YORK).astimezone(UTC)
    return f"{title['rule']}|{title['symbol']}|{start:%Y-%m-%dT%H:%M:%SZ}"


class Handler(BaseHTTPRequestHandler):
    receiver: JsonReceiver

    def do_POST(self) -> None:
        receiver = self.receiver
        receiver.requests += 1
        receiver.paths.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not receiver.meets_fault():
            receiver.taken.append(json.loads(body))
            self.answer(200, b"{}")
        elif receiver.fault == DROP:
            self.close_connection = True
        elif receiver.fault == DRIP:
            for _ in range(100):
                self.wfile.write(b"H")
                time.sleep(0.1)
        else:
            assert isinstance(receiver.fault, int)
            self.answer(receiver.fault, LEAK)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", f"http://127.0.0.1:{self.receiver.port}/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""
