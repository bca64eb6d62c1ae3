"""A program that owns or shares the services of a state, in its own process, for test_services.py.

``python services_program.py STATE [mongo]`` starts or uses the services (with ``mongo``, MongoDB alone). It prints one
JSON object with their addresses, their process ids and the log, and waits for its standard input to close.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from local.services import Services
from local.state import State


def main(path: str, *options: str) -> None:
    # A background job of a shell ignores Ctrl-C, and the tests may be one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log: list[str] = []
    state = State.create(Path(path), source={"kind": "synthetic"}, as_of=None)
    with Services(state, log.append, postgres="mongo" not in options) as services:
        watchdog = services._watchdog
        found = {
            "uris": services._uris,
            "servers": [server.pid for server in services._servers if server.poll() is None],
            "watchdog": watchdog.pid if watchdog else None,
            "log": log,
        }
        print(json.dumps(found), flush=True)
        sys.stdin.read()
    print("stopped", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
