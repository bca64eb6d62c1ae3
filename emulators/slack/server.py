"""How does Slack answer a post? An emulator on a free loopback port, for chat.postMessage and for a webhook.

It answers as the real one does, wrong tokens included: `{"ok": false, "error": …}` with status 200, 429 with
Retry-After, a proxy's page with 500, or a connection that closes without a word.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

TOKEN = "xoxb-emulator-token"  # noqa: S105
HOOK = "/services/T0/B0/emulator-hook"
DROP = "drop"


@dataclass
class Trouble:
    """What the next posts meet: an error code of Slack's, an HTTP status, or DROP; ``times`` of them, -1 for all."""

    what: str | int
    times: int = -1
    retry_after: int = 1


@dataclass
class SlackEmulator:
    """Slack from ``__enter__`` to ``__exit__``. ``posts`` are those it took: their channel and text."""

    trouble: Trouble | None = None
    posts: list[dict[str, Any]] = field(default_factory=list)
    attempts: int = 0

    @property
    def url(self) -> str:
        """What BARFLOW_SLACK_URL is to be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/api/"

    @property
    def webhook(self) -> str:
        """What BARFLOW_SLACK_WEBHOOK is to be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{HOOK}"

    def __enter__(self) -> SlackEmulator:
        handler = type("Handler", (_Handler,), {"slack": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_trouble(self) -> Trouble | None:
        self.attempts += 1
        found = self.trouble
        if found is not None and found.times > 0:
            found.times -= 1
            self.trouble = found if found.times else None
        return found


class _Handler(BaseHTTPRequestHandler):
    slack: SlackEmulator
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        trouble = self.slack.next_trouble()
        if trouble is None:
            self._take(body)
        elif trouble.what == DROP:
            self.close_connection = True
        elif isinstance(trouble.what, int):
            self._answer(trouble.what, "<html>not today</html>", {"Retry-After": str(trouble.retry_after)})
        else:
            self._refuse(trouble.what)

    def _take(self, body: str) -> None:
        if self.path == HOOK:
            self.slack.posts.append({"channel": "webhook", "text": json.loads(body)["text"]})
            self._answer(200, "ok")
        elif self.path != "/api/chat.postMessage":
            self._refuse("unknown_method")
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse("invalid_auth")
        else:
            form = {name: values[0] for name, values in parse_qs(body).items()}
            post = json.loads(body) if body.startswith("{") else form
            self.slack.posts.append({"channel": post["channel"], "text": post["text"]})
            self._answer(200, json.dumps({"ok": True, "ts": f"{len(self.slack.posts)}.0"}))

    def _refuse(self, code: str) -> None:
        if self.path == HOOK:
            self._answer(404, code)
        else:
            self._answer(200, json.dumps({"ok": False, "error": code}))

    def _answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        """Nothing: what it took is in ``posts``."""
