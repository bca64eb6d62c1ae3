"""Who stops the embedded services when their owner dies? This process, whatever the owner died of.

`python -m local.watchdog FILE` reads its standard input, a pipe that only the owner holds. A line names a process id
and the signal that stops it; when the pipe closes, FILE, which announces the services, is removed, and every named
process that still lives is told to stop, and after some seconds made to.
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wards: dict[psutil.Process, int] = {}
    for line in sys.stdin:
        pid, number = map(int, line.split())
        with contextlib.suppress(psutil.NoSuchProcess):
            wards[psutil.Process(pid)] = number  # remembers its start time: a reused pid is another process
    Path(sys.argv[1]).unlink(missing_ok=True)
    for ward, number in wards.items():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            ward.send_signal(number)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(map(lives, wards)):
        time.sleep(0.05)
    for ward in wards:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            ward.kill()


def lives(ward: psutil.Process) -> bool:
    """Whether the process still runs; one that ended and waits for its parent to notice does not."""
    try:
        return ward.is_running() and ward.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main()
    os._exit(0)
