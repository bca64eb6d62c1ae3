"""Receivers of webhooks for tests: the example receiver behind TLS, with faults, and channels that post to it."""

from __future__ import annotations

import importlib.util
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from barflow.alerts.webhook import WebhookChannel
from barflow.settings import Settings

SECRET, NEW_SECRET = "whsec_" + "b2xk" * 8, "whsec_" + "bmV3" * 8
HOST = "receiver.test"
# What a receiver that leaks would answer. It must be in no log and no error.
LEAK = b"account 4711 of the receiver"
DROP, DRIP = "drop", "drip"
FILE = Path(__file__).parents[2] / "examples" / "webhook_receiver.py"
specification = importlib.util.spec_from_file_location("webhook_receiver", FILE)
assert specification
assert specification.loader
example = importlib.util.module_from_spec(specification)
specification.loader.exec_module(example)


def certificate(folder: Path, host: str = HOST) -> Path:
    """Return the file of a new certificate for the host, with its key. It is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{host}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return file


class TlsReceiver:
    """The example receiver, running with TLS from ``__enter__`` to ``__exit__``.

    ``acted`` holds the alerts that it acted on, ``headers`` those of each request, ``connections`` counts handshakes
    that were tried. ``fault`` is a status, DROP or DRIP, which the next ``times`` requests meet (-1: all).
    """

    def __init__(self, folder: Path, secret: str = SECRET, host: str = HOST) -> None:
        self.folder, self.secret, self.host = folder, secret, host
        self.acted: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections, self.requests = 0, 0
        self.fault: int | str | None = None
        self.times, self.retry_after, self.location = -1, "", ""

    def __enter__(self) -> TlsReceiver:
        receiver = example.Receiver(self.secret, str(self.folder / "seen.sqlite"), self.acted.append)
        self._server = example.server(receiver, 0)
        self._server.daemon_threads = True
        handler = self._server.RequestHandlerClass
        self._server.RequestHandlerClass = type("Faulty", (Faulty, handler), {"tls": self})
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        context.sni_callback = lambda sock, name, context: self.names.append(name)
        self.names: list[str | None] = []
        accept = self._server.get_request

        def get_request() -> tuple[ssl.SSLSocket, Any]:
            sock, address = accept()
            self.connections += 1
            return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

        self._server.get_request = get_request
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @cached_property
    def certificate(self) -> Path:
        return certificate(self.folder, self.host)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}/alerts"

    @property
    def ready(self) -> dict[str, Any]:
        """What alert_ticks.prepare needs for a process with this channel."""
        return {"webhook": (self.url, self.certificate)}

    @property
    def seen_as(self) -> str:
        """What an error names."""
        return self.host

    def channel(self) -> WebhookChannel:
        return channel(self.url, self.certificate)

    def acted_ids(self) -> list[str]:
        return [item["id"] for item in self.acted]

    def meets_fault(self) -> bool:
        if self.fault is None or self.times == 0:
            return False
        self.times -= 1
        return True


class Faulty:
    """A handler that meets the receiver's fault, or passes the request to the example."""

    tls: TlsReceiver

    def do_POST(self: Any) -> None:
        tls = self.tls
        tls.requests += 1
        tls.headers.append({name.lower(): value for name, value in self.headers.items()})
        if not tls.meets_fault():
            super().do_POST()  # type: ignore[misc]
            return
        self.rfile.read(int(self.headers["Content-Length"]))
        self.close_connection = True
        if tls.fault == DROP:
            self.connection.shutdown(socket.SHUT_RDWR)
        elif tls.fault == DRIP:
            for _ in range(600):
                self.wfile.write(b"H")
                time.sleep(0.1)
        else:
            self.send_response(tls.fault)
            for name, value in (("Retry-After", tls.retry_after), ("Location", tls.location)):
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(LEAK)))
            self.end_headers()
            self.wfile.write(LEAK)

    def log_message(self, *arguments: object) -> None:
        """Log nothing: the alerts are in ``acted``."""


def resolver(*answers: Sequence[str]) -> Callable[[str, int], Sequence[str]]:
    """Return a resolver that gives these addresses one after the other, and the last ones for good."""
    left = list(answers)
    return lambda host, port: left.pop(0) if len(left) > 1 else left[0]


def channel(
    url: str,
    authority: Path,
    *,
    secret: str = SECRET,
    allow_private: bool = True,
    resolve: Callable[[str, int], Sequence[str]] | None = None,
) -> WebhookChannel:
    """Return the channel that posts to this address, whose name is resolved to loopback."""
    settings = Settings(webhook_url=(url,), webhook_secret=SecretStr(secret), webhook_allow_private=allow_private)
    resolve = resolve or resolver(["127.0.0.1"])
    return WebhookChannel(settings, url, resolve=resolve, context=ssl.create_default_context(cafile=str(authority)))
