"""The watchdog: a process that stops the embedded services when their owner ends, however it ends.

``python -m local.watchdog FILE`` reads its standard input, a pipe that only the owner holds. Each line has a process
id and the signal that stops that process. When the pipe closes, the watchdog removes FILE (the addresses of the
services), sends every process its signal, and kills those that still run after some seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import psutil

GRACE_SECONDS = 10.0


def main() -> None:
    """Read processes from standard input until it closes, then stop them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watched: dict[psutil.Process, int] = {}
    for line in sys.stdin:
        pid, number = map(int, line.split())
        with contextlib.suppress(psutil.NoSuchProcess):
            watched[psutil.Process(pid)] = number  # psutil compares start times: a reused pid is another process
    Path(sys.argv[1]).unlink(missing_ok=True)
    for process, number in watched.items():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            process.send_signal(number)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(map(is_running, watched)):
        time.sleep(0.05)
    for process in watched:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            process.kill()


def is_running(process: psutil.Process) -> bool:
    """Return whether a process still runs. A zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main()
    os._exit(0)
