"""The page's server: uvicorn in a thread, on one address, until the block ends."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from barflow.errors import BadInputError, BarflowError
from dashboard.live import Live
from dashboard.protocol import PageProtocol
from dashboard.security import HEADERS, HSTS, is_https

START_SECONDS = 30.0
CHECK_SECONDS = 5.0
# Connections, of which protocol.py lets some wait for their clients. Beyond that, a request is answered 503.
MAX_CONNECTIONS = 400
MAX_HEAD_BYTES = 16 * 1024
# Longer than a load balancer keeps an idle connection (AWS: 60 s), so that it never uses one that was just closed.
KEEP_ALIVE_SECONDS = 75
# The system closes a connection whose client has vanished.
VANISHED_MILLISECONDS = 60_000


@dataclass(frozen=True)
class Server:
    """A running server. ``url`` is the URL at which this host reaches it."""

    url: str
    live: Live
    thread: threading.Thread

    def wait(self) -> None:
        """Wait until the server or its watcher stops working. Raise BarflowError then."""
        while self.thread.is_alive() and not (stopped := self.live.stopped()):
            self.thread.join(CHECK_SECONDS)
        reason = "The page's server ended." if not self.thread.is_alive() else stopped
        raise BarflowError(f"{reason} The stores are unchanged. Start it again with `barflow dashboard`.")


@contextmanager
def serving(
    app: FastAPI, host: str, port: int, *, url: str | None = None, proxies: Sequence[str] = ()
) -> Iterator[Server]:
    """Serve the page and yield its server. Port 0 takes a free port.

    ``url`` is the URL at which visitors open the page. Forwarded headers are used from ``proxies`` (addresses and
    networks) only. Raises BadInputError if the address is in use, BarflowError if the server does not start.
    """
    listener = _listener(host, port)
    headers = HEADERS | HSTS if is_https(url) else HEADERS
    config = uvicorn.Config(
        app,
        http=PageProtocol,
        # Under uvloop, where it is installed, busy connections keep a new one waiting for seconds.
        loop="asyncio",
        headers=[*headers.items()],
        log_level=logging.ERROR,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=[*proxies],
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="page", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise BarflowError(
                    "The page's server did not start. Nothing was changed. Read its log above, then start it again."
                )
            time.sleep(0.01)
        # Loaded modules stay in memory. Full garbage collections over them would delay one response in a hundred.
        gc.collect()
        gc.freeze()
        shown = f"[{host}]" if ":" in host else host
        yield Server(f"http://{shown}:{listener.getsockname()[1]}/", app.state.live, thread)
    finally:
        app.state.live.close()  # ends the event streams, which the server would wait for
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if timeout := getattr(socket, "TCP_USER_TIMEOUT", None):  # on Linux
            listener.setsockopt(socket.IPPROTO_TCP, timeout, VANISHED_MILLISECONDS)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise BadInputError(
            f"Cannot listen on {host}:{port} ({error.strerror}). Nothing was served. Choose another port with --port."
        ) from None
    return listener
