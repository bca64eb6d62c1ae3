"""A connection to the receiver of a webhook: https, to an address that was checked, within a time limit.

The host name is resolved once per connection, and the connection goes to one of the addresses that were checked. A name
that changes its address afterwards (DNS rebinding) has no effect. The certificate is checked against the name.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

Resolve = Callable[[str, int], Sequence[str]]
# From the connection to the end of the answer.
TIMEOUT_SECONDS = 10.0
# A receiver's answer is read only so that the connection can be used again, and at most so many bytes of it.
MOST_BYTES = 64 * 1024
# The addresses of AWS's metadata and time services are in it, and the link-local ones of IPv4.
AWS_SERVICES = IPv6Network("fd00:ec2::/32")
# Networks whose addresses contain an IPv4 address in their last 32 bits.
TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("::/96"))


class AddressRefusedError(OSError):
    """The receiver's name has an address that webhooks are not sent to."""


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host in the system's order. Raises OSError if it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def check(addresses: Sequence[str], *, allow_private: bool) -> None:
    """Raise AddressRefusedError if one of the addresses is not public.

    ``allow_private`` allows private and loopback addresses, but never link-local ones and those of AWS's metadata.
    """
    for text in addresses:
        for address in _meant(ip_address(text)):
            if _is_link_local(address) or address.is_multicast or address.is_unspecified:
                raise AddressRefusedError(f"{text} is an address that no webhook is sent to")
            if not address.is_global and not (allow_private and (address.is_private or address.is_loopback)):
                raise AddressRefusedError(
                    f"{text} is not a public address; set BARFLOW_WEBHOOK_ALLOW_PRIVATE to allow private ones"
                )


def _is_link_local(address: IPv4Address | IPv6Address) -> bool:
    return address.is_link_local or (address.version == 6 and address in AWS_SERVICES)


def _meant(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return the addresses that packets to this address can reach: itself, or the IPv4 address within it."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    within = [address.sixtofour] if address.sixtofour else list(address.teredo or ())
    if any(address in network for network in TRANSLATED) and int(address) > 1:
        within.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *within]


class CheckedConnection(http.client.HTTPSConnection):
    """A connection that checks the addresses of its host each time it connects."""

    def __init__(
        self, host: str, port: int, *, allow_private: bool, context: ssl.SSLContext, resolve: Resolve = resolve
    ) -> None:
        super().__init__(host, port, timeout=TIMEOUT_SECONDS, context=context)
        self._allow_private, self._tls, self._resolve = allow_private, context, resolve
        self._deadline = 0.0

    def connect(self) -> None:
        """Connect to the first address that answers, with TLS for the host's name. Raises OSError."""
        addresses = self._resolve(self.host, self.port)
        check(addresses, allow_private=self._allow_private)
        raw = self._first(addresses)
        # The handshake is a step of its own, since the time limit can close only a known socket.
        self.sock = self._tls.wrap_socket(raw, server_hostname=self.host, do_handshake_on_connect=False)
        if time.monotonic() >= self._deadline:
            raise TimeoutError
        self.sock.do_handshake()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _first(self, addresses: Sequence[str]) -> socket.socket:
        problem = OSError("the host has no address")
        for address in addresses:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                return socket.create_connection((address, self.port), timeout=left)
            except OSError as error:
                problem = error
        raise problem

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str | None]:
        """Return the status and the header Retry-After of the answer.

        The answer's body is discarded. Raises OSError or HTTPException, also when the time limit is over.
        """
        used_before = self.sock is not None
        with self._limited():
            try:
                return self._exchange(path, body, headers)
            except (ConnectionError, ssl.SSLError):
                if not used_before:
                    raise
                self.close()  # the receiver had closed it, which shows only now
                return self._exchange(path, body, headers)

    def _exchange(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str | None]:
        self.request("POST", path, body, dict(headers))
        answer = self.getresponse()
        answer.read(MOST_BYTES)
        if not answer.isclosed():
            self.close()
        return answer.status, answer.headers.get("Retry-After")

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Shut the socket down at the end of the time limit: a read's own limit starts again with each byte."""
        self._deadline = time.monotonic() + TIMEOUT_SECONDS
        timer = threading.Timer(TIMEOUT_SECONDS, self._shut_down)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception:
            if time.monotonic() >= self._deadline:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
            timer.join()  # one that was already firing would shut down the socket of the next message

    def _shut_down(self) -> None:
        sock = self.sock
        if isinstance(sock, socket.socket):
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                return  # it is closed
