"""How is the page served? By uvicorn in a thread, on a port of one host, until the block ends."""

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
    """Serves the page and gives its URL; port 0 is a free one. Raises BadInputError when the address is taken."""
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
                raise BarflowError("the page's server did not start. Nothing was changed; see what it said above.")
            time.sleep(0.01)
        # What is loaded by now stays. The collector's full rounds over it would hold up one answer in a hundred.
        gc.collect()
        gc.freeze()
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{listener.getsockname()[1]}/"
    finally:
        app.state.live.close()  # ends the open streams, for which the server would wait
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
            f"{host}:{port} cannot be served on ({error.strerror}). Nothing was served. Choose another with --port."
        ) from None
    return listener
