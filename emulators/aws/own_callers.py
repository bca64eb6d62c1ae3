"""The emulator answers programs of its own user only, because its callers can make it run a program.

Loopback is open to every user of the machine, and to web pages that its browsers show.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from emulators.aws.patches import Function, wrap

CONNECTIONS = Path("/proc/net/tcp")  # on Linux: one line per IPv4 socket, with the user who made it
NAMES = (".127.0.0.1", ".localhost", ".amazonaws.com")


@wrap(DomainDispatcherApplication, "__call__")
def _answer_own_programs(
    original: Function, app: Any, environ: dict[str, Any], start_response: Function
) -> Iterable[bytes]:
    """Reject a web page, which sends its origin or a name of its own, and a program of another user."""
    named = f".{environ.get('HTTP_HOST', '').partition(':')[0]}".endswith(NAMES)
    ends = int(environ["REMOTE_PORT"]), int(environ["SERVER_PORT"])
    if named and "HTTP_ORIGIN" not in environ and _is_own(environ["REMOTE_ADDR"], *ends):
        return original(app, environ, start_response)
    start_response("403 Forbidden", [("Content-Type", "text/plain")])
    return [b"the AWS emulator answers programs of its own user only"]


def _is_own(address: str, port: int, server_port: int) -> bool:
    """Return whether this user, or root, made the socket at the other end of a connection to ``server_port``.

    Sockets to other servers may have the same address and port. One that waits after its end is listed as root's.
    """
    if not CONNECTIONS.exists():
        return True
    other_end = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{port:04X}"
    lines = (line.split() for line in CONNECTIONS.read_text().splitlines())
    owners = [
        int(fields[7]) for fields in lines if fields[1] == other_end and fields[2].endswith(f":{server_port:04X}")
    ]
    return bool(owners) and set(owners) <= {0, os.geteuid()}
