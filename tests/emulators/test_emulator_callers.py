"""The emulator runs programs for its callers, so it rejects web pages and the other users of the machine."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

import pytest
from aws_parts import Aws

REQUEST = "GET /?Action=ListBuckets HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n"


def connection_to(address: tuple[str, int], source: tuple[str, int] = ("127.0.0.1", 0)) -> socket.socket:
    """Return a connection from a port that may be used again at once."""
    connection = socket.socket()
    connection.settimeout(30)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.bind(source)
    connection.connect(address)
    return connection


def status(
    aws: Aws,
    host: str = "localhost",
    headers: str = "",
    user: int | None = None,
    source: tuple[str, int] = ("127.0.0.1", 0),
) -> int:
    """Return the status that a request gets, on a socket that belongs to another user if one is given."""
    address = "127.0.0.1", int(urlsplit(aws.url).port or 0)
    try:
        if user is not None:
            os.seteuid(user)
        connection = connection_to(address, source)
    finally:
        if user is not None:
            os.seteuid(0)
    with connection:
        connection.sendall(REQUEST.format(host=host, headers=headers).encode())
        return int(connection.recv(64).split()[1])


def test_programs_of_this_user_are_answered(aws: Aws) -> None:
    assert [status(aws, host) for host in ("localhost", "localhost:80", "127.0.0.1")] == [200] * 3
    assert status(aws, "absent.localhost:80") == 404  # S3 reads the bucket from the name


def test_a_web_page_is_rejected(aws: Aws) -> None:
    assert status(aws, headers="Origin: http://page.example\r\n") == 403
    assert status(aws, headers="Origin: null\r\n") == 403
    assert [status(aws, host) for host in ("rebound.example", "localhost.example:80", "xlocalhost")] == [403] * 3


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can connect as another user")
def test_another_user_of_the_machine_is_rejected(aws: Aws) -> None:
    assert status(aws, user=65534) == 403


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can connect as another user")
def test_another_user_on_a_port_that_this_user_had_is_rejected(aws: Aws) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = connection_to(server.getsockname())
        source = ended.getsockname()
        accepted, _ = server.accept()
        ended.close()  # first, so that its port waits, as root's
        accepted.close()
    assert status(aws, user=65534, source=source) == 403
