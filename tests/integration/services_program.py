"""How does a test let a command own, or share, the services of a state? By this program in a process of its own.

``python services_program.py STATE [mongo]`` starts or uses the services (MongoDB alone when told so), prints one
JSON object with their addresses, their process ids and what was said, and waits for its standard input to close.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from local.services import Services
from local.state import State


def main(path: str, *options: str) -> None:
    # A shell's background job, as the tests may be, ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    said: list[str] = []
    state = State.create(Path(path), source={"kind": "synthetic"}, as_of=None)
    with Services(state, said.append, postgres="mongo" not in options) as services:
        watchdog = services._watchdog
        found = {
            "uris": services._uris,
            "servers": [server.pid for server in services._servers],
            "watchdog": watchdog.pid if watchdog else None,
            "said": said,
        }
        print(json.dumps(found), flush=True)
        sys.stdin.read()
    print("stopped", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
