"""A receiver of webhooks: verify each alert, act on it once, and answer.

    WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py [PORT] [SEEN.sqlite]

It listens on this machine only. Barflow sends webhooks to https addresses, so put a server with a certificate in front
of it. Delivery is at least once, so an alert can arrive twice. The receiver stores the ids of handled alerts in a small
file. It answers a repeated id with success and does nothing: any other answer would bring the alert again.
"""

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

MOST_BYTES = 64 * 1024


def act(alert: dict[str, Any]) -> None:
    """Print the alert: replace this with what your bot does.

    Do not trade on an alert that arrives late: compare bar_start with the clock.
    """
    if alert["kind"] == "test":  # of `barflow alerts test-channel`: no bar fired it
        print(alert["text"], flush=True)
        return
    print(alert["bar_start"], alert["severity"], alert["text"], flush=True)


class Receiver:
    """Verifies alerts, and acts on each id once. ``secret`` is the ``whsec_…`` that the sender has, too."""

    def __init__(self, secret: str, seen_file: str, act: Callable[[dict[str, Any]], object] = act) -> None:
        self.webhook, self.act = Webhook(secret), act
        self.seen = sqlite3.connect(seen_file, isolation_level=None, check_same_thread=False)
        self.seen.execute("create table if not exists acted (id text primary key)")
        self.one_at_a_time = Lock()

    def receive(self, headers: Mapping[str, str], body: bytes) -> HTTPStatus:
        """Return the status of the answer. Act on an alert that is signed, at most five minutes old, and new."""
        try:
            # It checks the bytes as they arrived. JSON that is parsed and written again has another signature.
            self.webhook.verify(body, dict(headers), json_parse=False)
        except (WebhookVerificationError, ValueError):
            return HTTPStatus.UNAUTHORIZED
        alert = json.loads(body)
        with self.one_at_a_time:
            if not self.seen.execute("select 1 from acted where id = ?", [alert["id"]]).fetchone():
                self.act(alert)
                self.seen.execute("insert into acted values (?)", [alert["id"]])
        return HTTPStatus.NO_CONTENT


class Handler(BaseHTTPRequestHandler):
    """Passes each POST to the receiver. An error in ``act`` is answered with 500, and the alert arrives again."""

    receiver: Receiver
    protocol_version = "HTTP/1.1"  # the sender can use a connection for several alerts
    timeout = 30

    def do_POST(self) -> None:
        """Answer an alert."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self.close_connection = True
            self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        try:
            status = self.receiver.receive(dict(self.headers.items()), body)
        except Exception as error:
            print(f"the alert was not handled: {error!r}", file=sys.stderr)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        self.answer(status)

    def answer(self, status: HTTPStatus) -> None:
        """Send a status without a body."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def server(receiver: Receiver, port: int) -> ThreadingHTTPServer:
    """Return a server on loopback that passes alerts to the receiver. Port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), type("ThisHandler", (Handler,), {"receiver": receiver}))


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    seen_file = sys.argv[2] if len(sys.argv) > 2 else "seen.sqlite"
    server(Receiver(os.environ["WEBHOOK_SECRET"], seen_file), port).serve_forever()
