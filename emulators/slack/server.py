"""An emulator of Slack on a free loopback port: chat.postMessage, chat.delete and an incoming webhook.

It answers as Slack does, also to a wrong token: ``{"ok": false, "error": …}`` with status 200. With a fault it answers
429 with Retry-After, a proxy's page with 500 or truncated JSON, or closes the connection without an answer.
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
DROP, TRUNCATE = "drop", "truncate"


@dataclass
class Fault:
    """A fault that the next posts meet.

    ``answer`` is one of Slack's error codes, an HTTP status, DROP to close the connection, or TRUNCATE to cut off
    the JSON. ``times`` is the number of posts that meet it, -1 for all. ``retry_after`` is in seconds.
    """

    answer: str | int
    times: int = -1
    retry_after: int = 1


@dataclass
class SlackEmulator:
    """Slack, running from ``__enter__`` to ``__exit__``.

    ``posts`` holds the channel and text of each accepted post, ``deleted`` those that were deleted later; ``attempts``
    also counts those that met a fault.
    """

    fault: Fault | None = None
    posts: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[dict[str, Any]] = field(default_factory=list)
    attempts: int = 0

    @property
    def url(self) -> str:
        """The value of BARFLOW_SLACK_URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/api/"

    @property
    def webhook(self) -> str:
        """The value of BARFLOW_SLACK_WEBHOOK."""
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

    def next_fault(self) -> Fault | None:
        """Count an attempt, and return the fault that it meets."""
        self.attempts += 1
        found = self.fault
        if found is not None and found.times > 0:
            found.times -= 1
            self.fault = found if found.times else None
        return found


class _Handler(BaseHTTPRequestHandler):
    slack: SlackEmulator
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        fault = self.slack.next_fault()
        if fault is None:
            self._accept(body)
        elif fault.answer == DROP:
            self.close_connection = True
        elif fault.answer == TRUNCATE:
            self._answer(200, '{"ok": tr')
        elif isinstance(fault.answer, int):
            self._answer(fault.answer, "<html>not today</html>", {"Retry-After": str(fault.retry_after)})
        else:
            self._refuse(fault.answer)

    def _accept(self, body: str) -> None:
        if self.path == HOOK:
            self.slack.posts.append({"channel": "webhook", "text": json.loads(body)["text"]})
            self._answer(200, "ok")
        elif self.path not in ("/api/chat.postMessage", "/api/chat.delete"):
            self._refuse("unknown_method")
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse("invalid_auth")
        else:
            form = {name: values[0] for name, values in parse_qs(body).items()}
            post = json.loads(body) if body.startswith("{") else form
            self._post(post) if self.path == "/api/chat.postMessage" else self._delete(post)

    def _post(self, post: dict[str, Any]) -> None:
        """Accept a post. Slack answers with the id of the channel that the post names."""
        self.slack.posts.append({"channel": post["channel"], "text": post["text"]})
        answer = {"ok": True, "ts": f"{len(self.slack.posts)}.0", "channel": f"C-{post['channel']}"}
        self._answer(200, json.dumps(answer))

    def _delete(self, given: dict[str, Any]) -> None:
        """Delete a post, named by the channel's id and the post's ts; a channel's name is not accepted."""
        number = int(given["ts"].partition(".")[0]) - 1
        found = self.slack.posts[number] if number in range(len(self.slack.posts)) else None
        if not given["channel"].startswith("C-"):
            self._refuse("channel_not_found")
        elif found is None or found in self.slack.deleted:
            self._refuse("message_not_found")
        else:
            self.slack.deleted.append(found)
            self._answer(200, json.dumps({"ok": True, "ts": given["ts"], "channel": given["channel"]}))

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
        """Log nothing: the accepted posts are in ``posts``."""
