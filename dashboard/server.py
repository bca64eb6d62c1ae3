"""The page's server: uvicorn in a thread, on one address, until the block ends."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from barflow.errors import BadInputError, BarflowError

START_SECONDS = 30.0


@contextmanager
def serving(app: FastAPI, host: str, port: int) -> Iterator[str]:
    """Serve the page and yield its URL. Port 0 takes a free port.

    Raises BadInputError if the address is in use, BarflowError if the server does not start.
    """
    listener = _listener(host, port)
    config = uvicorn.Config(
        app,
        log_level=logging.ERROR,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
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
        yield f"http://{shown}:{listener.getsockname()[1]}/"
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
