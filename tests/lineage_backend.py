"""An OpenLineage backend for tests: a real HTTP server that collects events, or that fails in a chosen way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/api/v1/lineage"


class Backend(ThreadingHTTPServer):
    """Collects the ``events`` and the ``keys`` sent with them.

    ``status`` is what it answers. ``slow`` is a time in seconds: it sends its answer byte by byte, this long apart.
    """

    daemon_threads = True

    def __init__(self, status: int = 201, slow: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.slow = status, slow
        self.events: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def of(self, job: str) -> list[dict[str, Any]]:
        """Return the events of a job in the order in which they came."""
        return [event for event in self.events if event["job"]["name"] == job]


class _Handler(BaseHTTPRequestHandler):
    server: Backend

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests += 1
        if self.path == PATH:
            self.server.events.append(json.loads(body))
            self.server.keys.append(self.headers.get("Authorization"))
        answer = f"HTTP/1.1 {self.server.status} x\r\nContent-Length: 0\r\n\r\n".encode()
        try:
            for place in range(len(answer)):
                self.wfile.write(answer[place : place + 1])
                time.sleep(self.server.slow)
        except OSError:
            pass  # the client gave up

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def backend(status: int = 201, slow: float = 0) -> Iterator[Backend]:
    """Start a backend for a block."""
    with Backend(status, slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def name_of(item: dict[str, Any]) -> tuple[str, str]:
    """Return the full name of a dataset or job in an event."""
    return item["namespace"], item["name"]


def facet(dataset: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a facet of a dataset in an event, without the fields that every facet has."""
    found = {**dataset.get("facets", {}), **dataset.get("inputFacets", {}), **dataset.get("outputFacets", {})}[name]
    return {key: value for key, value in found.items() if not key.startswith("_")}
