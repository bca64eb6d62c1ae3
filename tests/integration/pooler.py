"""A pooler in front of PostgreSQL that refuses startup parameters as PgBouncer does, and relays everything else.

Source of the rule and the words: PgBouncer 1.25, setting ``ignore_startup_parameters``.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psycopg.conninfo import conninfo_to_dict, make_conninfo

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
TRACKED = {"client_encoding", "datestyle", "timezone", "standard_conforming_strings", "application_name"}
ACCEPTED = {"user", "database"} | TRACKED


class _Pooler(socketserver.ThreadingTCPServer):
    daemon_threads = True
    backend = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.startups: list[dict[str, str]] = []


class _Session(socketserver.BaseRequestHandler):
    server: _Pooler

    def handle(self) -> None:
        body = self._startup()
        texts = [part.decode() for part in body[4:].split(b"\0")]
        given = dict(zip(texts[::2], texts[1::2], strict=False))
        given.pop("", None)
        self.server.startups.append(given)
        if refused := [name for name in given if name not in ACCEPTED]:
            fields = f"SFATAL\0C08P01\0Munsupported startup parameter: {refused[0]}\0\0".encode()
            self.request.sendall(b"E" + struct.pack("!I", len(fields) + 4) + fields)
            return
        with socket.socket(socket.AF_UNIX) as backend:
            backend.connect(self.server.backend)
            backend.sendall(struct.pack("!I", len(body) + 4) + body)
            answers = threading.Thread(target=_relay, args=(backend, self.request), daemon=True)
            answers.start()
            _relay(self.request, backend)
            answers.join(5)

    def _startup(self) -> bytes:
        """Return the startup message after its length. Decline encryption, as a pooler without TLS does."""
        while True:
            (length,) = struct.unpack("!I", self.request.recv(4, socket.MSG_WAITALL))
            body: bytes = self.request.recv(length - 4, socket.MSG_WAITALL)
            if struct.unpack("!I", body[:4])[0] not in (SSL_REQUEST, GSS_REQUEST):
                return body
            self.request.sendall(b"N")


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def pooler(dsn: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield the DSN of a pooler in front of a server on a Unix socket, and the startup parameters that it received."""
    server = _Pooler()
    server.backend = f"{conninfo_to_dict(dsn)['host']}/.s.PGSQL.{conninfo_to_dict(dsn).get('port', 5432)}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield make_conninfo(dsn, host="127.0.0.1", port=server.server_address[1]), server.startups
    finally:
        server.shutdown()
        server.server_close()
